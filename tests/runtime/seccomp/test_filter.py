"""The filter on the real kernel: attacks from a child that has it on, and the same without it."""

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime import seccomp, syscalls

pytestmark = pytest.mark.kernel

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
IS_X86 = platform.machine() == "x86_64"
AF_ALG, AF_VSOCK, AF_XDP = 38, 40, 44
TIOCSTI = 0x5412
UPROBE = 336


@pytest.fixture
def confined(in_child: Callable[..., Any], home: Path) -> Callable[..., Any]:
    """`confined(function)`: run it in a child under the default filter."""
    program = seccomp.load(seccomp.cached(str(home)))

    def run(function: Callable[[], Any]) -> Any:
        def body() -> Any:
            syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
            seccomp.install(program)
            return function()

        return in_child(body)

    return run


def _errno_of(number: int, *arguments: int) -> int:
    words = [ctypes.c_long(each) for each in (*arguments, *[-1] * 6)[:6]]
    ctypes.set_errno(0)
    return ctypes.get_errno() if LIBC.syscall(ctypes.c_long(number), *words) < 0 else 0


def _socket_errno(family: int, kind: int) -> int:
    try:
        socket.socket(family, kind).close()
    except OSError as error:
        return error.errno or -1
    return 0


def test_every_call_that_is_not_allowed_fails_with_its_errno(confined: Callable[..., Any]) -> None:
    """A raw loop over all numbers up to 600 (K4): EPERM, ENOSYS for clone3 and what is newer than the profile.

    uprobe is left out: since Linux 6.18 no filter sees it, as it is the kernel's own way back from a probe.
    """
    policy = seccomp.policy(platform.machine())
    seen = set(range(600)) - ({UPROBE} if IS_X86 else set())
    refused = sorted(seen - policy.allowed - policy.rules.keys())
    found = confined(lambda: [_errno_of(number) for number in refused])
    wrong = {
        number: got
        for number, got in zip(refused, found, strict=True)
        if got != policy.errnos.get(number, errno.ENOSYS if number > policy.highest else errno.EPERM)
    }
    assert wrong == {}


def test_sockets_into_the_kernel_are_refused(confined: Callable[..., Any], in_child: Callable[..., Any]) -> None:
    """AF_ALG, AF_VSOCK, AF_PACKET and AF_XDP give EPERM (K3); without the filter at least one does not."""
    kinds = [(AF_ALG, 5), (AF_VSOCK, 1), (socket.AF_PACKET, socket.SOCK_RAW), (AF_XDP, socket.SOCK_RAW)]

    def attack() -> list[int]:
        return [_socket_errno(family, kind) for family, kind in kinds]

    assert confined(attack) == [errno.EPERM] * 4
    assert confined(lambda: _socket_errno(socket.AF_UNIX, socket.SOCK_STREAM)) == 0
    assert in_child(attack) != [errno.EPERM] * 4


def test_no_new_user_namespace(confined: Callable[..., Any], in_child: Callable[..., Any]) -> None:
    """unshare and clone with CLONE_NEWUSER give EPERM and clone3 gives ENOSYS (K2)."""

    def unshare() -> int:
        try:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
        except OSError as error:
            return error.errno or -1
        return 0

    number_of_clone = 56 if IS_X86 else 220
    assert confined(unshare) == errno.EPERM
    assert confined(lambda: _errno_of(number_of_clone, syscalls.CLONE_NEWUSER | 17, 0, 0, 0, 0)) == errno.EPERM
    assert confined(lambda: _errno_of(435)) == errno.ENOSYS
    assert in_child(lambda: _errno_of(435)) != errno.ENOSYS


def test_a_terminal_cannot_be_typed_into(confined: Callable[..., Any], in_child: Callable[..., Any]) -> None:
    """TIOCSTI gives EPERM by the filter, whoever the terminal belongs to (K6)."""

    def type_into() -> int:
        _, terminal = os.openpty()
        os.setsid()
        fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY
        try:
            fcntl.ioctl(terminal, TIOCSTI, b"x")
        except OSError as error:
            return error.errno or -1
        return 0

    assert confined(type_into) == errno.EPERM
    assert in_child(type_into) != errno.EPERM


@pytest.mark.attack("R15")
@pytest.mark.control("R15")
@pytest.mark.skipif(not IS_X86, reason="i386 and x32 are entries of x86_64")
def test_the_i386_entry_is_closed(confined: Callable[..., Any], in_child: Callable[..., Any]) -> None:
    """`int 0x80` gives ENOSYS for mount, ptrace, socketcall and even getpid (R15); without the filter it works."""

    def by_interrupt(number: int) -> int:
        # push rbx; mov eax, number; xor ebx, ecx, edx; int 0x80; pop rbx; ret
        code = b"\x53\xb8" + number.to_bytes(4, "little") + b"\x31\xdb\x31\xc9\x31\xd2\xcd\x80\x5b\xc3"
        with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as memory:
            memory.write(code)
            buffer = (ctypes.c_char * 1).from_buffer(memory)
            result: int = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(buffer))()
            del buffer
        return result

    getpid, mount, ptrace, socketcall = 20, 21, 26, 102
    # User-mode Linux takes the interrupt for an ordinary call.
    if not in_child(lambda: by_interrupt(getpid) == os.getpid()):
        pytest.skip("this kernel has no i386 entry")
    assert confined(lambda: [by_interrupt(n) for n in (getpid, mount, ptrace, socketcall)]) == [-errno.ENOSYS] * 4


@pytest.mark.attack("R15")
@pytest.mark.skipif(not IS_X86, reason="i386 and x32 are entries of x86_64")
def test_the_x32_entry_is_closed(confined: Callable[..., Any]) -> None:
    """Bit 30 in the number gives ENOSYS, whatever the call."""
    assert confined(lambda: [_errno_of(0x40000000 | number) for number in (0, 1, 39, 165)]) == [errno.ENOSYS] * 4


def test_ordinary_programs_run_under_it(confined: Callable[..., Any]) -> None:
    """Processes, threads, sockets, pipes and files work: a shell pipeline and a Python with threads end well."""
    script = """
python3 - <<'PYTHON' | sort | head -1
import threading, socket, tempfile, subprocess, select, asyncio, multiprocessing
threads = [threading.Thread(target=print, args=("ok",)) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
a, b = socket.socketpair(); a.sendall(b"x"); assert b.recv(1) == b"x"
with tempfile.NamedTemporaryFile() as f: f.write(b"y"); f.flush()
assert subprocess.run(["sh", "-c", "exit 3"]).returncode == 3
asyncio.run(asyncio.sleep(0))
PYTHON
"""

    def shell() -> list[Any]:
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
        pid = os.posix_spawn("/bin/sh", ["sh", "-ec", script], {"PATH": "/usr/bin:/bin"}, file_actions=actions)
        os.close(writer)
        output = os.read(reader, 4096).decode()
        return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), output]

    assert confined(shell) == [0, "ok\n"]


def test_a_filter_is_compiled_once(home: Path) -> None:
    """The second call finds the file; another capability set has another."""
    first = seccomp.cached(str(home))
    stamp = os.stat(first).st_mtime_ns
    assert seccomp.cached(str(home)) == first
    assert os.stat(first).st_mtime_ns == stamp
    assert seccomp.cached(str(home), 0) != first
    assert [name for name in os.listdir(home / "templates") if name.endswith(".tmp")] == []
