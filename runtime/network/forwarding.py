"""Has this host forward what goes between jobs and its uplinks, and leaves it as it was afterwards.

IPv4 forwards by the link on which a packet comes in, so bridge and uplinks are switched on and nothing else. IPv6 has
the same (`force_forwarding`) since Linux 6.17; before, only one switch for all links, which also makes the host deaf to
router advertisements, so we leave it to the operator: without it jobs have no IPv6.

A link that forwards only because of us must not forward for others: the policy drops that (`Policy.closed`), as long as
the host as a whole does not forward, which its operator or another program may switch on at any time. Several
homes may need one link, so who does is noted in a file that all of them share, one a network namespace.
"""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator

from dayfly.jobs.errors import HostError

_SO_NETNS_COOKIE = 71  # socket(7)
_SYSCTL = "/proc/sys/net"
_REMEDY = "`sysctl net.ipv4.ip_forward=1`, or run the worker where /proc/sys is writable"

Users = dict[str, list[str]]


def has_ipv6() -> bool:
    """Whether IPv6 can be forwarded for jobs on this host, without touching what others rely on."""
    return can_force_ipv6() or read_sysctl("ipv6/conf/all/forwarding") == "1"


def can_force_ipv6() -> bool:
    return read_sysctl("ipv6/conf/default/force_forwarding") is not None


def claim_links(tag: str, uplinks: list[str]) -> tuple[tuple[int, str], ...]:
    """Note that this home needs `uplinks` to forward; those (ip version, link) that will do it for us alone.

    Before they do: the policy has to come in between.
    """
    is_router = dict(zip(("ipv4", "ipv6"), global_switches(), strict=True))
    closed = []
    with _users() as users:
        for family, link, switch in _switches(uplinks):
            if switch in users or read_sysctl(switch) == "0":
                users[switch] = sorted({*users.get(switch, ()), tag})
                closed += [] if is_router[family] == "1" else [(int(family[-1]), link)]
    return tuple(closed)


def open_links(bridge: str, uplinks: list[str]) -> None:
    """Forward between `bridge` and `uplinks`. Raises HostError."""
    for *_, switch in _switches([bridge, *uplinks]):
        if read_sysctl(switch) != "1":
            try:
                write_sysctl(switch, "1")
            except OSError as error:
                raise HostError("forward packets for jobs by", f"{_SYSCTL}/{switch}", error.errno, _REMEDY) from error


def close_links(tag: str) -> None:
    """This home needs none any more: what nobody needs is as it was."""
    with _users() as users:
        for switch in list(users):
            users[switch] = [each for each in users[switch] if each != tag]
            if not users[switch]:
                del users[switch]
                _close(switch)


def global_switches() -> tuple[str | None, str | None]:
    """Whether the host as a whole forwards IPv4, and IPv6: "1" or "0"; None where it has no such protocol."""
    return read_sysctl("ipv4/conf/all/forwarding"), read_sysctl("ipv6/conf/all/forwarding")


def read_sysctl(name: str) -> str | None:
    """None where this kernel has none of that name."""
    try:
        with open(f"{_SYSCTL}/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return None


def write_sysctl(name: str, value: str) -> None:
    """Raises OSError."""
    with open(f"{_SYSCTL}/{name}", "w", encoding="ascii") as file:
        file.write(value)


def _switches(links: list[str]) -> list[tuple[str, str, str]]:
    """Of each link: (protocol, link, its switch)."""
    kinds = [("ipv4", "forwarding"), *([("ipv6", "force_forwarding")] if can_force_ipv6() else [])]
    return [(family, link, f"{family}/conf/{link}/{kind}") for family, kind in kinds for link in links]


def _namespace() -> str:
    """What no other network namespace is called until the next boot; before Linux 5.14, as long as this one lives."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_of_it:
        try:
            return any_of_it.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8).hex()
        except OSError:
            return str(os.stat("/proc/self/ns/net").st_ino)


def _close(switch: str) -> None:
    family = switch.partition("/")[0]
    if read_sysctl(f"{family}/conf/all/forwarding") != "1":  # else somebody wants it on by now
        with contextlib.suppress(OSError):  # the link has gone, and its switch with it
            write_sysctl(switch, "0")


@contextlib.contextmanager
def _users() -> Iterator[Users]:
    """Which homes need which switch on, of those that were off; written back when the block ends."""
    path = f"/run/dayfly-forwarding-{_namespace()}.json"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "r+", encoding="ascii") as file:
        fcntl.flock(fd, fcntl.LOCK_EX)
        users: Users = json.loads(file.read() or "{}")
        yield users
        file.seek(0)
        file.truncate()
        json.dump(users, file)
        file.flush()
        if not users:
            os.unlink(path)
