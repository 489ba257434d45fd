"""User, network, IPC and UTS namespaces of a container, made ahead by a short-lived child.

They must belong to the job's own user namespace, or CAP_NET_BIND_SERVICE, CAP_NET_RAW and sethostname would mean
nothing inside; whereas the mounts are made by host root in a mount namespace that the job does not own. A process
cannot come back from a user namespace, so a child enters it, makes the others there, and leaves; descriptors keep
them alive.
"""

import fcntl
import os
import socket
import struct
from contextlib import suppress

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.idrange import RANGE_SIZE

_IFF_UP, _SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x1, 0x8913, 0x8914  # netdevice(7)
_KINDS = (
    ("user", syscalls.CLONE_NEWUSER),
    ("net", syscalls.CLONE_NEWNET),
    ("ipc", syscalls.CLONE_NEWIPC),
    ("uts", syscalls.CLONE_NEWUTS),
)


class Namespaces:
    """Descriptors of a container's namespaces, by kind: user, net (not for network: host), ipc, uts."""

    def __init__(self, fds: dict[str, int]) -> None:
        self.fds = fds

    @property
    def user(self) -> int:
        return self.fds["user"]

    @classmethod
    def make(cls, first_id: int, network: str) -> "Namespaces":
        """Make them for the ids from `first_id` on. Raises `HostError`."""
        kinds = [(name, flag) for name, flag in _KINDS if name != "net" or network != "host"]
        return cls(_make(kinds, f"0 {first_id} {RANGE_SIZE}"))

    @classmethod
    def mapping(cls, disk_id: int, job_id: int, proc: str) -> "Namespaces":
        """A user namespace that maps one owner on disk to one id of the job, for an idmapped mount.

        `proc` is a mount of the caller's own PID namespace.
        """
        return cls(_make([_KINDS[0]], f"{disk_id} {job_id} 1", proc))

    def enter(self, *names: str) -> None:
        """Join some of them, those that exist (setns(2))."""
        for name, flag in _KINDS:
            if name in names and name in self.fds:
                syscalls.setns(self.fds[name], flag)

    def close(self) -> None:
        """Let go of them; the kernel frees what nobody uses."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}


def _make(kinds: list[tuple[str, int]], id_map: str, proc: str = "/proc") -> dict[str, int]:
    (made_r, made_w), (done_r, done_w) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(made_r)
        os.close(done_w)
        _stay(kinds, made_w, done_r)
    os.close(made_w)
    os.close(done_r)
    try:
        _check(os.read(made_r, 4))
        return _open(f"{proc}/{child}", kinds, id_map)
    finally:
        os.close(made_r)
        os.close(done_w)
        os.waitpid(child, 0)


def _stay(kinds: list[tuple[str, int]], made_w: int, done_r: int) -> None:
    """The child: make the namespaces, say so (or the errno), wait until the parent has opened them."""
    number = 0
    try:
        flags = 0
        for _, flag in kinds:
            flags |= flag
        syscalls.unshare(flags)
        if flags & syscalls.CLONE_NEWNET:
            _loopback_up()
    except OSError as error:
        number = error.errno or 1
    with suppress(BrokenPipeError):  # the parent is gone: nobody to tell
        os.write(made_w, struct.pack("<i", number))
    os.close(made_w)
    os.read(done_r, 1)
    os._exit(0)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", _IFF_UP)
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)


def _check(answer: bytes) -> None:
    number = struct.unpack("<i", answer)[0] if len(answer) == 4 else 3
    if number:
        raise HostError(
            "make the job's user, network, IPC and UTS namespaces",
            None,
            number,
            "see `dayfly doctor`; sysctl user.max_user_namespaces and user.max_net_namespaces must be above 0",
        )


def _open(child: str, kinds: list[tuple[str, int]], id_map: str) -> dict[str, int]:
    for name in ("uid_map", "gid_map"):
        fd = os.open(f"{child}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, id_map.encode())
        finally:
            os.close(fd)
    return {name: os.open(f"{child}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name, _ in kinds}
