"""User, network, IPC and UTS namespaces of a container, made ahead by a short-lived child.

They must belong to the job's own user namespace, or CAP_NET_BIND_SERVICE, CAP_NET_RAW and sethostname would mean
nothing inside; whereas the mounts are made by host root in a mount namespace that the job does not own. A process
cannot come back from a user namespace, so a child is born into all of them and ends once descriptors hold them.
"""

import errno
import fcntl
import os
import signal
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.idrange import IdMap

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
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
    def make(cls, ids: IdMap, network: str, proc: str) -> "Namespaces":
        """Make them for a job of these ids. Raises `HostError`.

        `proc` is a mount of the caller's own PID namespace.
        """
        kinds = [(name, flag) for name, flag in _KINDS if name != "net" or network != "host"]
        id_map = f"0 {ids.first} {ids.size}"
        return cls(_make(kinds, id_map, id_map, proc))

    @classmethod
    def mapping(cls, uids: Mapping[int, int], gids: Mapping[int, int], proc: str) -> "Namespaces":
        """A user namespace that maps single ids on disk to single ids of the job, for an idmapped mount."""
        return cls(_make([_KINDS[0]], _id_map(uids), _id_map(gids), proc))

    @classmethod
    def shared_of(cls, pid: int, network: str) -> "Namespaces":
        """What a container that lives beside the one with PID 1 `pid` has in common with it: user, and net.

        The user namespace is found as the owner of another, since init enters it last. Raises `HostError`.
        """
        fds: dict[str, int] = {}
        try:
            ipc = os.open(f"/proc/{pid}/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
            try:
                fds["user"] = fcntl.ioctl(ipc, _NS_GET_USERNS)
            finally:
                os.close(ipc)
            if network != "host":
                fds["net"] = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            cls(fds).close()
            raise HostError("open the namespaces of the job's init", f"/proc/{pid}/ns", error.errno) from error
        return cls(fds)

    @classmethod
    def beside(cls, shared: Mapping[str, int], proc: str) -> "Namespaces":
        """IPC and UTS namespaces of its own in the user namespace of another container, and what it shares with that.

        Raises `HostError`. `proc` is a mount of the caller's own PID namespace.
        """
        return cls({**_make_within(shared["user"], proc), **shared})

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


def loopback_up() -> None:
    """Bring `lo` of the current network namespace up (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", _IFF_UP)
        fcntl.ioctl(control.fileno(), _SIOCSIFFLAGS, request)


def quieten(ids: IdMap) -> None:
    """Have links to come take no address and no route from the network, and let a job's users ping (icmp(7)).

    Before the pivot, by the host's own /proc/sys: /proc/sys/net is that of the reader's namespace. Raises OSError.
    """
    for name, value in (
        ("ipv4/ping_group_range", f"{ids.first} {ids.first + ids.size - 1}"),
        ("ipv4/conf/default/accept_redirects", "0"),
        ("ipv4/conf/default/accept_source_route", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/default/accept_redirects", "0"),
        ("ipv6/conf/default/autoconf", "0"),
        ("ipv6/conf/default/addr_gen_mode", "1"),  # no link-local address: nobody would answer it
    ):
        with suppress(FileNotFoundError), open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:  # no IPv6 here
            file.write(value)


def _id_map(ids: Mapping[int, int]) -> str:
    return "\n".join(f"{disk_id} {job_id} 1" for disk_id, job_id in ids.items())


def _make(kinds: list[tuple[str, int]], uid_map: str, gid_map: str, proc: str) -> dict[str, int]:
    flags = 0
    for _, flag in kinds:
        flags |= flag
    try:
        holder = syscalls.PausedProcess(flags)
    except OSError as error:
        raise HostError(
            "make the job's user, network, IPC and UTS namespaces",
            None,
            error.errno,
            "see `dayfly doctor`; sysctl user.max_user_namespaces and user.max_net_namespaces must be above 0",
        ) from error
    try:
        return _open(f"{proc}/{holder.pid}", kinds, {"uid_map": uid_map, "gid_map": gid_map})
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        os.waitpid(holder.pid, 0)


def _make_within(user: int, proc: str) -> dict[str, int]:
    """A child enters the user namespace, from where it cannot come back, and makes the others there."""
    made, done = os.pipe()
    holder = os.fork()
    if holder == 0:
        _hold_within(user, done)
    os.close(done)
    try:
        number = int(os.read(made, 8) or b"0")
        if number:
            raise HostError("make the IPC and UTS namespaces of a service", None, number, "see `dayfly doctor`")
        return {name: os.open(f"{proc}/{holder}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in ("ipc", "uts")}
    finally:
        os.close(made)
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)


def _hold_within(user: int, done: int) -> NoReturn:
    number = 0
    try:
        syscalls.setns(user, syscalls.CLONE_NEWUSER)
        syscalls.unshare(syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS)
    except OSError as error:
        number = error.errno or errno.EPERM
    os.write(done, b"%d" % number)
    while True:
        signal.pause()


def _open(holder: str, kinds: list[tuple[str, int]], id_maps: Mapping[str, str]) -> dict[str, int]:
    for name, id_map in id_maps.items():
        fd = os.open(f"{holder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, id_map.encode())
        finally:
            os.close(fd)
    return {name: os.open(f"{holder}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name, _ in kinds}
