"""The host, as one sees it who has left its network namespace: an ordinary user's bridge stands in one of its own.

Files of /proc/net show the namespace in which they were opened, and a netlink socket stays in the one that it was made
in. So this is opened before the process goes, and read afterwards.
"""

import ipaddress
import itertools
import socket
from typing import TextIO

from dayfly.runtime.network.routes import links_and_ranges4

_ADDRESS_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR: rtnetlink(7)
_LARGEST = 1 << 16


class OuterHost:
    """`fd` is readable when an address of the host has changed."""

    def __init__(self) -> None:
        self._routes = _opened("route")
        self._trie = _opened("fib_trie")
        self._addresses6 = _opened("if_inet6")
        self._changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        self._changes.bind((0, _ADDRESS_GROUPS))
        self.fd = self._changes.fileno()

    def addresses(self) -> tuple[str, ...]:
        """Each address of the host's links, loopback's as well."""
        return tuple(sorted({*_local4(_read(self._trie)), *_local6(_read(self._addresses6))}))

    def ranges4(self) -> list[ipaddress.IPv4Network]:
        """What the host has routes to, but for the default one."""
        return [range4 for _, range4 in links_and_ranges4(_read(self._routes)) if range4.prefixlen]

    def clear(self) -> None:
        """Read all that is told: what has changed is looked up instead."""
        try:
            while self._changes.recv(_LARGEST):
                pass
        except BlockingIOError:
            pass


def _opened(name: str) -> TextIO | None:
    try:
        return open(f"/proc/self/net/{name}", encoding="ascii")
    except FileNotFoundError:  # a kernel without that protocol
        return None


def _read(file: TextIO | None) -> str:
    if file is None:
        return ""
    file.seek(0)
    return file.read()


def _local4(trie: str) -> set[str]:
    """The line after `|-- ADDRESS` says what it is; an address of our own is `/32 host LOCAL`."""
    lines = trie.splitlines()
    return {
        line.split()[-1]
        for line, what in itertools.pairwise(lines)
        if "|--" in line and what.split() == ["/32", "host", "LOCAL"]
    }


def _local6(text: str) -> set[str]:
    return {str(ipaddress.IPv6Address(int(line.split()[0], 16))) for line in text.splitlines()}
