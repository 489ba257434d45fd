"""The embedded stack: a Valkey and a worker that the first `dayfly` of a machine starts, and that end by themselves.

Files below DAYFLY_HOME/run (0700):
    use.lock      shared by every client while it runs; the idle worker ends the stack only if it gets it for itself
    start.lock    held by whoever starts, heals or stops the stack
    valkey.lock, worker.lock    locked as long as that process lives, with its pid (daemon.py)
    valkey.sock, valkey.log, worker.log
    keep          `dayfly up`: no end when idle
    stopped       `dayfly down`: a client that is still waiting does not start the stack again

A client that finds both locks held and gets a PONG has nothing else to do. Anything less (first start, a process
that died, a starter that was killed half-way) takes start.lock and starts what is missing: one path for all.
"""

import contextlib
import fcntl
import hashlib
import os
import select
import signal
import sys
import time
from pathlib import Path

from dayfly import daemon, valkey
from dayfly.jobs.errors import DayflyError

# unix(7): 108 bytes with the closing NUL.
_LONGEST_SOCKET_PATH = 107
_READY_SECONDS = 60.0
_LARGE_LOG_BYTES = 10 << 20


class Stack:
    """The embedded stack of one DAYFLY_HOME. From `ensure` to `release` it does not end for want of work."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = self.home / "run"
        self.socket = _socket_path(self.home)
        self._use: int | None = None
        self._start = daemon.LockFile(self.run / "start.lock")
        self._valkey = daemon.LockFile(self.run / "valkey.lock")
        self._worker = daemon.LockFile(self.run / "worker.lock")

    @property
    def url(self) -> str:
        from urllib.parse import quote

        return f"unix://{quote(str(self.socket))}"

    def is_up(self) -> bool:
        return self._worker.is_held() and self._valkey.is_held() and valkey.is_ready(self.socket)

    def is_kept(self) -> bool:
        return (self.run / "keep").exists()

    def ensure(self) -> None:
        """Make the stack run. Raises DayflyError where that is impossible."""
        self._make_directories()
        self._hold()
        if self.is_up():
            return
        with self._start.held():
            (self.run / "stopped").unlink(missing_ok=True)
            self._start_missing()

    def release(self) -> None:
        """This process uses the stack no longer: it may end when idle."""
        if self._use is not None:
            os.close(self._use)
            self._use = None

    def heal(self) -> bool:
        """Start again what died while we wait. Did anything? Not after `dayfly down`: that is an error then."""
        if self.is_up():
            return False
        with self._start.held():
            if (self.run / "stopped").exists():
                raise DayflyError(
                    "the embedded stack was stopped with `dayfly down` before this job was finished",
                    remedy="run it again: that starts the stack",
                )
            return self._start_missing()

    def keep(self) -> None:
        """No end when idle, until `stop`."""
        self._make_directories()
        (self.run / "keep").touch(mode=0o600)

    def stop(self, *, now: bool = False) -> list[str]:
        """End worker and server and wait for both; returns what was running. `now`: running jobs are requeued."""
        if not self.run.is_dir():
            return []
        with self._start.held():
            (self.run / "stopped").touch(mode=0o600)
            (self.run / "keep").unlink(missing_ok=True)
            ended = [name for name in (self._stop_worker(now), self._stop_valkey()) if name]
            self._remove_socket()
        return ended

    def end_if_unused(self) -> bool:
        """The idle worker asks: may everything end? If so the server is down when this returns, and we must exit.

        use.lock stays ours until we have exited: a client that comes meanwhile waits, then starts a new stack.
        """
        try:
            daemon.LockFile(self.run / "use.lock").take(fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if self.is_kept():
            return False
        self._stop_valkey()
        self._remove_socket()
        # Before use.lock goes with our exit: else the next client might still take us for a living worker.
        os.close(daemon.LOCK_FD)
        return True

    def worker_log_tail(self) -> str:
        return _tail(self.run / "worker.log")

    def _hold(self) -> None:
        if self._use is None:
            self._use = daemon.LockFile(self.run / "use.lock").take(fcntl.LOCK_SH)

    def _make_directories(self) -> None:
        for directory in (self.home, self.run, self.home / "valkey", self.socket.parent):
            _make_private(directory)

    def _start_missing(self) -> bool:
        """Only with start.lock. The worker starts beside the server: it takes longer to be ready."""
        missing = [name for name, lock in (("valkey", self._valkey), ("worker", self._worker)) if not lock.is_held()]
        if "valkey" in missing:
            self._spawn_valkey()
        if "worker" in missing:
            self._spawn_worker()
        self._await_valkey()
        return bool(missing)

    def _spawn_valkey(self) -> None:
        command = valkey.command(valkey.find_program(), unix_socket=self.socket, directory=self.home / "valkey")
        self._spawn(command, self._valkey, "valkey.log")

    def _spawn_worker(self) -> None:
        # -I: nothing of the caller's directory or PYTHONPATH decides what the worker imports.
        command = [sys.executable, "-I", "-m", "dayfly", "worker", "--embedded", "--url", self.url]
        self._spawn(command, self._worker, "worker.log")

    def _spawn(self, command: list[str], lock: daemon.LockFile, log: str) -> None:
        held = lock.take()
        _cut(self.run / log)
        try:
            daemon.spawn(command, lock=held, log=self.run / log, environment=daemon.plain_environment(self.home))
        except OSError as error:
            raise DayflyError(f"cannot start {command[0]} for the embedded stack: {error.strerror}") from error
        finally:
            os.close(held)

    def _await_valkey(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        # Nothing tells when a server listens (no sd_notify in this build), so ask: it takes some 10 ms.
        while not valkey.is_ready(self.socket):
            if not self._valkey.is_held() or time.monotonic() > deadline:
                raise DayflyError(
                    f"the embedded Redis does not answer on {self.socket}: {_tail(self.run / 'valkey.log')}",
                    remedy=f"look at {self.run / 'valkey.log'} and at the free space of {self.home}",
                )
            time.sleep(0.002)

    def _stop_worker(self, now: bool) -> str | None:
        if not self._worker.is_held():
            return None
        pidfd = self._worker.holder()
        if pidfd is not None:
            _signal(pidfd, signal.SIGTERM)
            if now and not _ended(pidfd, 0.2):
                _signal(pidfd, signal.SIGTERM)
            _ended(pidfd, None)
            os.close(pidfd)
        return "worker"

    def _stop_valkey(self) -> str | None:
        if not self._valkey.is_held():
            return None
        pidfd = self._valkey.holder() or _pidfd(valkey.serving_pid(self.socket))
        if pidfd is not None:
            _signal(pidfd, signal.SIGTERM)
            if not _ended(pidfd, 10.0):
                _signal(pidfd, signal.SIGKILL)
                _ended(pidfd, None)
            os.close(pidfd)
        return "valkey"

    def _remove_socket(self) -> None:
        self.socket.unlink(missing_ok=True)
        if self.socket.parent != self.run:
            with contextlib.suppress(OSError):  # not there, or not empty: then it is not ours
                self.socket.parent.rmdir()


def _socket_path(home: Path) -> Path:
    near = home / "run" / "valkey.sock"
    if len(os.fsencode(near)) <= _LONGEST_SOCKET_PATH:
        return near
    above = Path("/run" if os.geteuid() == 0 else "/tmp")  # to be made there by nobody else, see _make_private
    return above / f"dayfly-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}" / "valkey.sock"


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise DayflyError(
            f"cannot make the directory {directory}: {error.strerror}", remedy="set DAYFLY_HOME to one that is yours"
        ) from error
    if status.st_uid != os.geteuid():
        raise DayflyError(
            f"{directory} belongs to uid {status.st_uid}, not to {os.geteuid()}",
            remedy="set DAYFLY_HOME to a directory of your own",
        )


def _signal(pidfd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended by itself
        signal.pidfd_send_signal(pidfd, number)


def _ended(pidfd: int, timeout_seconds: float | None) -> bool:
    return bool(select.select([pidfd], [], [], timeout_seconds)[0])


def _pidfd(pid: int | None) -> int | None:
    with contextlib.suppress(ProcessLookupError):
        return None if pid is None else os.pidfd_open(pid)
    return None


def _cut(log: Path) -> None:
    """A log that has grown large makes room for a new one."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LARGE_LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def _tail(log: Path, limit_bytes: int = 2000) -> str:
    """The last lines of a log, for an error message."""
    try:
        text = log.read_bytes()[-limit_bytes:].decode(errors="replace")
    except OSError:
        text = ""
    lines = dict.fromkeys(line.removeprefix("dayfly: ") for line in text.strip().splitlines()[-3:])
    return " / ".join(lines) or "its log is empty"
