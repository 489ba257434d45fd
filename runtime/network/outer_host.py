"""The host, as one sees it who has left its network namespace: an ordinary user's bridge stands in one of its own.

Files of /proc/net show the namespace in which they were opened, and a netlink socket stays in the one that it was made
in. So this is opened before the process goes, and read afterwards.
"""

import ipaddress
from collections.abc import Iterator
from typing import TextIO

from dayfly.jobs.errors import HostError
from dayfly.runtime.network.routes import links_and_ranges4
from dayfly.runtime.network.watch import drain, route_socket

_GROUPS = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE: rtnetlink(7)
_LOCAL6, _ANYCAST6 = 0x80000000, 0x00100000  # RTF_LOCAL, RTF_ANYCAST (linux/ipv6_route.h)
_ALWAYS = ("127.0.0.0/8", "::1/128", "::ffff:0:0/96")


class OuterHost:
    """`fd` is readable when an address or a route of the host has changed."""

    def __init__(self) -> None:
        """Raises HostError where the host does not tell its addresses."""
        self._routes = _opened("route")
        self._trie = _opened("fib_trie")
        self._routes6 = _opened("ipv6_route", may_lack=True)
        self._changes = route_socket(_GROUPS)
        self.fd = self._changes.fileno()

    def addresses(self) -> tuple[str, ...]:
        """Every range that the host takes for itself: each address of its links, loopback, whatever it is routed."""
        return tuple(sorted({*_ALWAYS, *_local4(_read(self._trie)), *_local6(_read(self._routes6))}))

    def ranges4(self) -> list[ipaddress.IPv4Network]:
        """What the host has routes to, but for the default one."""
        return [range4 for _, range4 in links_and_ranges4(_read(self._routes)) if range4.prefixlen]

    def clear(self) -> None:
        drain(self._changes)


def _opened(name: str, *, may_lack: bool = False) -> TextIO | None:
    path = f"/proc/self/net/{name}"
    try:
        return open(path, encoding="ascii")
    except OSError as error:
        if may_lack and isinstance(error, FileNotFoundError):  # a kernel without that protocol
            return None
        raise HostError("learn the host's addresses from", path, error.errno) from error


def _read(file: TextIO | None) -> str:
    if file is None:
        return ""
    file.seek(0)
    return file.read()


def _local4(trie: str) -> Iterator[str]:
    """Below `|-- ADDRESS` a line for each route that begins there; `/32 host LOCAL` is one to the host itself."""
    address = ""
    for line in trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[-1:] == ["LOCAL"]:
            yield str(ipaddress.IPv4Network(f"{address}{words[0]}"))


def _local6(routes: str) -> Iterator[str]:
    """Without link-local ones: nothing is routed to them, and they come and go with each link."""
    for line in routes.splitlines():
        words = line.split()
        if int(words[8], 16) & (_LOCAL6 | _ANYCAST6):
            found = ipaddress.IPv6Network((int(words[0], 16), int(words[1], 16)))
            if not found.is_link_local:
                yield str(found)
