"""Start a program that outlives its starter and owes it nothing, and tell for certain whether it lives.

A CI system finds what a step left running by its pipes (GitLab), its environment (Jenkins: BUILD_ID and
JENKINS_NODE_COOKIE) or its session, and waits for it or kills it. So a daemon gets a session of its own, /dev/null
and a log file as its only descriptors, and a short list of environment variables.

A daemon is alive while its lock file is locked. The starter takes the lock (flock(2): it belongs to the open file and
so survives fork and exec), hands the open file over as descriptor 3 and lets go of its own. From the spawn to the
daemon's last breath somebody holds the lock, without a gap, and no pid needs to be believed.
"""

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

from dayfly.config import find_file

LOCK_FD = 3
_KEPT = frozenset(
    (
        *("PATH", "HOME", "LANG"),
        # How images are pulled: by which proxy, with whose certificates and passwords.
        *(name for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for name in (proxy, proxy.lower())),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"),
    )
)


class LockFile:
    """The lock of one daemon, or of one step that only one process may take at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def is_held(self) -> bool:
        """Does anybody hold it? Asked with a shared lock, so that two who ask never see each other."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def take(self, operation: int = fcntl.LOCK_EX) -> int:
        """Lock it and return the open file, which holds the lock until it is closed. Waits unless LOCK_NB is given."""
        fd = _above_stdio(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        try:
            fcntl.flock(fd, operation)
        except BaseException:
            os.close(fd)
            raise
        return fd

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        fd = self.take()
        try:
            yield
        finally:
            os.close(fd)

    def holder(self) -> int | None:
        """A pidfd of the daemon that wrote its pid here and holds the lock; None when nobody does.

        The pid is read while the lock is held and the lock is looked at again once the pidfd is open: the process
        that the pidfd stands for is then the one that wrote it.
        """
        text = self.path.read_text().strip() if self.is_held() else ""
        if not text.isdigit():
            return None
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            pidfd = os.pidfd_open(int(text))
            if self.is_held():
                return pidfd
            os.close(pidfd)
        return None


def write_pid(lock_fd: int, pid: int) -> None:
    text = f"{pid}\n".encode()
    os.pwrite(lock_fd, text, 0)
    os.ftruncate(lock_fd, len(text))


def adopt_lock() -> None:
    """In the daemon, first thing: keep the lock to ourselves (no child may hold it on) and say who we are."""
    os.set_inheritable(LOCK_FD, False)
    write_pid(LOCK_FD, os.getpid())


def spawn(argv: list[str], *, lock: int, log: Path, environment: Mapping[str, str]) -> int:
    """Start `argv` as a daemon that holds `lock` (an open LockFile) as descriptor 3. Returns its pid."""
    pid = os.posix_spawn(
        argv[0],
        argv,
        environment,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
            (os.POSIX_SPAWN_DUP2, lock, LOCK_FD),
            # Python's own files close themselves; these are the ones that the caller's shell or CI left open.
            *((os.POSIX_SPAWN_CLOSE, fd) for fd in _open_files() if fd > LOCK_FD),
        ],
        setsid=True,
        setsigmask=(),
        # An ignored signal stays ignored over exec: SIGPIPE in every Python, SIGHUP below nohup.
        setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
    )
    write_pid(lock, pid)
    return pid


def plain_environment(home: Path) -> dict[str, str]:
    """What a daemon may know of its starter: where programs are, whose it is, the language, the way to registries, and
    Dayfly's own.

    The configuration's file by its whole path: the daemon has neither the starter's directory nor XDG_CONFIG_HOME.
    """
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or _is_ours(name)}
    file = find_file()
    configured = {} if file is None else {"DAYFLY_CONFIG": str(file)}
    return {"PATH": os.defpath, **kept, **configured, "DAYFLY_HOME": str(home)}


def _is_ours(name: str) -> bool:
    # Not what a Dayfly job sees of itself, nor the address of somebody else's Redis.
    return name.startswith("DAYFLY_") and name not in (
        "DAYFLY_JOB_ID",
        "DAYFLY_ATTEMPT",
        "DAYFLY_WORKSPACE",
        "DAYFLY_URL",
        "DAYFLY_REDIS_URL",
    )


def _open_files() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _above_stdio(fd: int) -> int:
    """A caller may have closed 0, 1 or 2; a lock there would be overwritten by the daemon's own."""
    if fd > LOCK_FD:
        return fd
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOCK_FD + 1)
    os.close(fd)
    return high
