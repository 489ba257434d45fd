"""Hears of what changes behind our back: tables that are deleted, since a host's firewall that is loaded anew flushes
ours along with its own; links that go with the namespace of a job."""

import errno
import socket
from typing import Protocol

from dayfly.runtime.network.nfnetlink import NETLINK_NETFILTER, Netfilter, attribute

_GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES
_GROUPS_OF_LINKS = 0x1  # RTMGRP_LINK
_TABLE_NAME = 1  # NFTA_TABLE_NAME
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_FAMILIES = (1, 7)  # NFPROTO_INET, NFPROTO_BRIDGE
_LARGEST = 1 << 18


class Watch(Protocol):
    """`fd` is readable when something has changed; `clear` reads all that is told."""

    @property
    def fd(self) -> int: ...

    def clear(self) -> None: ...


class TableWatch:
    """Of nftables, in the network namespace that this process is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self.fd = self._socket.fileno()

    def clear(self) -> None:
        drain(self._socket)


class LinkWatch:
    """Of links, in the network namespace that this process is in."""

    def __init__(self) -> None:
        self._socket = route_socket(_GROUPS_OF_LINKS)
        self.fd = self._socket.fileno()

    def clear(self) -> None:
        drain(self._socket)


def route_socket(groups: int) -> socket.socket:
    """Hears of these groups of rtnetlink(7)."""
    listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    listening.bind((0, groups))
    return listening


def drain(listening: socket.socket) -> None:
    """Read all that is told. What has changed is looked up instead: a large transaction, and each of ours is one, is
    told only in part (ENOBUFS, netlink(7))."""
    while True:
        try:
            listening.recv(_LARGEST)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def has_tables(table: str) -> bool:
    """Whether the tables of this name are there, of both families. Raises OSError."""
    name = attribute(_TABLE_NAME, table.encode() + b"\0")
    with Netfilter() as netfilter:
        for family in _FAMILIES:
            try:
                netfilter.ask(_GETTABLE, family, (name,))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return False
                raise
    return True
