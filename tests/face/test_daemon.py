"""A daemon owes its starter nothing, and its lock tells whether it lives."""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dayfly.daemon import LockFile, plain_environment, spawn

_DEADLINE_SECONDS = 20.0


def _start(tmp_path: Path, program: str) -> tuple[LockFile, int]:
    lock = LockFile(tmp_path / "lock")
    held = lock.take()
    pid = spawn(
        [sys.executable, "-c", program], lock=held, log=tmp_path / "log", environment=plain_environment(tmp_path)
    )
    os.close(held)
    return lock, pid


def _await_end(pid: int) -> None:
    pidfd = os.pidfd_open(pid)
    assert select.select([pidfd], [], [], _DEADLINE_SECONDS)[0]
    os.close(pidfd)
    os.waitpid(pid, 0)


def test_a_daemon_is_told_the_configuration_that_its_starter_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its whole path: it has neither XDG_CONFIG_HOME nor the directory that a relative DAYFLY_CONFIG starts from."""
    file = tmp_path / "xdg-config/dayfly/config.toml"
    file.parent.mkdir(parents=True)
    file.touch()
    assert plain_environment(tmp_path)["DAYFLY_CONFIG"] == str(file)
    monkeypatch.chdir(file.parent)
    monkeypatch.setenv("DAYFLY_CONFIG", "config.toml")
    assert plain_environment(tmp_path)["DAYFLY_CONFIG"] == str(file)


def test_lock_is_held_from_spawn_to_death(tmp_path: Path) -> None:
    """The lock is held as long as the daemon lives, and no longer, without its doing anything for it."""
    lock, pid = _start(tmp_path, "import signal; signal.pause()")
    try:
        assert lock.is_held()
        pidfd = lock.holder()
        assert pidfd is not None
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.close(pidfd)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _await_end(pid)
    assert not lock.is_held()
    assert lock.holder() is None


def test_daemon_has_nothing_of_its_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Session, descriptors, environment and signals of the caller stay with the caller."""
    monkeypatch.setenv("JENKINS_NODE_COOKIE", "x")
    monkeypatch.setenv("DAYFLY_URL", "redis://elsewhere")
    leaked, other = os.pipe()
    os.set_inheritable(leaked, True)
    os.set_inheritable(other, True)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        _, pid = _start(
            tmp_path,
            "import os, signal; print(os.getsid(0) == os.getpid(), "
            "sorted(int(f) for f in os.listdir('/proc/self/fd'))[:5],"
            "'JENKINS_NODE_COOKIE' in os.environ, os.environ['DAYFLY_HOME'], 'DAYFLY_URL' in os.environ,"
            "signal.getsignal(signal.SIGHUP) is signal.SIG_DFL, os.readlink('/proc/self/fd/0'))",
        )
        _await_end(pid)
    finally:
        signal.signal(signal.SIGHUP, before)
        os.close(leaked)
        os.close(other)
    # Descriptor 4 is the directory that it is reading.
    assert (tmp_path / "log").read_text() == f"True [0, 1, 2, 3, 4] False {tmp_path} False True /dev/null\n"


def test_two_who_ask_do_not_see_each_other(tmp_path: Path) -> None:
    """Asking whether a lock is held never makes it look held to somebody else."""
    lock = LockFile(tmp_path / "lock")
    assert not lock.is_held()
    shared = lock.take(fcntl.LOCK_SH)
    assert not lock.is_held()
    os.close(shared)


def test_lock_never_lands_on_a_standard_descriptor(tmp_path: Path) -> None:
    """A caller that closed stdin does not find the lock in its place."""
    program = (
        "import os, sys; os.close(0); from pathlib import Path; from dayfly.daemon import LockFile\n"
        f"print(LockFile(Path({str(tmp_path / 'lock')!r})).take() > 3)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
