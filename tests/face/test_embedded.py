"""The embedded stack: started once, healed whatever died, ended without a trace."""

import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dayfly import valkey
from dayfly.daemon import LockFile
from dayfly.embedded import Stack
from dayfly.jobs.errors import DayflyError

pytestmark = pytest.mark.kernel
_DEADLINE_SECONDS = 20.0


@pytest.fixture
def stack(home: Path, nothing_left: None) -> Iterator[Stack]:
    stack = Stack(home)
    yield stack
    stack.stop(now=True)
    stack.release()


def _kill(lock: LockFile) -> None:
    pidfd = lock.holder()
    assert pidfd is not None
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], _DEADLINE_SECONDS)[0]
    os.close(pidfd)


def _pid(stack: Stack, name: str) -> int:
    return int((stack.run / f"{name}.lock").read_text())


def test_stack_answers_on_a_private_unix_socket_only(stack: Stack) -> None:
    """The server has no TCP port, and nobody else can reach its socket."""
    stack.ensure()
    assert stack.is_up()
    assert stat.S_IMODE(stack.run.stat().st_mode) == 0o700
    pid = _pid(stack, "valkey")
    sockets = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    inodes = {line.split()[9] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    assert not inodes & {each.removeprefix("socket:[").rstrip("]") for each in sockets if each.startswith("socket:")}


def test_long_home_gets_a_short_socket(tmp_path: Path, nothing_left: None) -> None:
    """A home whose socket's path would not fit into sun_path works all the same, and leaves nothing in /run."""
    stack = Stack(tmp_path / ("long" * 30))
    stack.ensure()
    assert stack.is_up()
    stack.stop(now=True)
    stack.release()
    assert not stack.socket.parent.exists()


@pytest.mark.parametrize("dead", [["valkey"], ["worker"], ["valkey", "worker"]])
def test_whatever_died_is_started_again(stack: Stack, dead: list[str]) -> None:
    """A server or worker that was killed is back after the next `ensure`; what lives is left alone."""
    stack.ensure()
    before = {name: _pid(stack, name) for name in ("valkey", "worker")}
    for name in dead:
        _kill(LockFile(stack.run / f"{name}.lock"))
    assert not stack.is_up()
    stack.ensure()
    assert stack.is_up()
    for name, pid in before.items():
        assert (_pid(stack, name) != pid) == (name in dead)


def test_stale_socket_is_no_server(stack: Stack) -> None:
    """A socket that a dead server left behind does not keep a new one from starting."""
    stack.run.mkdir(parents=True)
    stack.home.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(stack.socket))
    stack.ensure()
    assert stack.is_up()


def test_starter_killed_half_way_is_healed(stack: Stack) -> None:
    """A starter that was killed between server and worker leaves a half that the next one completes."""
    program = (
        "import os, sys\nfrom dayfly import daemon\nfrom dayfly.embedded import Stack\nfrom dayfly.home import home\n"
        "spawn = daemon.spawn\n"
        "def once(*arguments, **keywords):\n    spawn(*arguments, **keywords)\n    os.kill(os.getpid(), 9)\n"
        "daemon.spawn = once\nStack(home()).ensure()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -signal.SIGKILL
    assert LockFile(stack.run / "valkey.lock").is_held()
    assert not LockFile(stack.run / "worker.lock").is_held()
    half = valkey.serving_pid(stack.socket)
    stack.ensure()
    assert stack.is_up()
    assert half in (None, valkey.serving_pid(stack.socket))


def test_ten_starters_start_one_stack(stack: Stack) -> None:
    """Ten processes that start at the same moment in an empty home share one server and one worker."""
    program = (
        "import sys\nfrom dayfly.embedded import Stack\nfrom dayfly.home import home\n"
        "sys.stdin.read()\nstack = Stack(home())\nstack.ensure()\n"
        "locks = (stack.run / f'{each}.lock' for each in ('valkey', 'worker'))\n"
        "print(stack.is_up(), *(lock.read_text().strip() or '-' for lock in locks))"
    )
    gate_read, gate_write = os.pipe()
    starters = [
        subprocess.Popen([sys.executable, "-c", program], stdin=gate_read, stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    os.close(gate_read)
    os.close(gate_write)
    is_up, servers, workers = zip(*(starter.communicate(timeout=60)[0].split() for starter in starters), strict=True)
    assert set(is_up) == {"True"}
    # A daemon takes its lock an instant before it writes its pid into it.
    assert len(set(servers) - {"-"}) == 1
    assert set(workers) - {"-"} <= {str(_pid(stack, "worker"))}


def test_down_ends_everything_and_says_what(stack: Stack) -> None:
    """`stop` waits until both are gone, takes the socket along, and finds nothing the second time."""
    stack.ensure()
    assert stack.stop(now=True) == ["worker", "valkey"]
    assert not stack.socket.exists()
    assert stack.stop() == []


def test_waiting_client_does_not_undo_down(stack: Stack) -> None:
    """After `dayfly down` a client that still waits gets an error; a new command starts the stack again."""
    stack.ensure()
    stack.stop(now=True)
    with pytest.raises(DayflyError, match="dayfly down"):
        stack.heal()
    stack.ensure()
    assert stack.is_up()


def test_another_users_home_is_refused(home: Path) -> None:
    """A home that somebody else made is not used: its owner would own every job."""
    home.mkdir()
    os.chown(home, 12345, 12345)
    with pytest.raises(DayflyError, match="belongs to uid 12345"):
        Stack(home).ensure()
