"""Links, addresses, routes and queues by pyroute2: the one file that knows it.

Imported by the network's own process, and by whoever takes a bridge away or looks at the host: importing pyroute2 takes
130 ms and 25 MB, which no launcher, keeper or job shall pay.
"""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.network.addresses import Addresses
from dayfly.runtime.network.names import port_prefix

_INNER = "eth0"
_NO_DAD = 0x02  # IFA_F_NODAD
_PERMANENT = 0x80  # NUD_PERMANENT; of a bridge's own table it would mean: the host itself
_STATIC = 0x40  # NUD_NOARP
_NTF_MASTER = 0x04
_ONLINK = 0x04  # RTNH_F_ONLINK
_AF_INET, _AF_INET6 = socket.AF_INET, socket.AF_INET6
_RTMGRP_LINK = 1
_FORWARDING = 3  # BR_STATE_FORWARDING
_CARRIER_SECONDS = 10.0
_LARGEST_CHANGE = 1 << 16
_QUEUED_FOR = "50ms"  # how long a packet may wait for its turn under a limit
_LEAST_BURST_BYTES = 64 << 10  # a whole segmentation-offload packet, or large ones never pass


@dataclass(frozen=True, slots=True)
class Plug:
    """One job's place on the bridge; the limits are in bytes a second, None is none."""

    index: int
    ingress_bps: int | None = None
    egress_bps: int | None = None


@contextmanager
def links() -> Iterator["Links"]:
    """The links of the network namespace that this process is in. A refusal of the kernel is a HostError."""
    try:
        with _open() as found:
            yield found
    except NetlinkError as error:
        raise HostError("set up the network", None, error.code, "see `dayfly doctor`") from error


class Links:
    """Use links()."""

    def __init__(self, route: Any, changes: socket.socket) -> None:
        self._route = route
        self._changes = changes
        self._known: dict[str, int] = {}

    def index_of(self, name: str) -> int | None:
        if name not in self._known:
            found = self._route.link_lookup(ifname=name)
            if not found:
                return None
            self._known[name] = found[0]
        return self._known[name]

    def remove(self, name: str) -> bool:
        """False when there is no link of that name."""
        index = self.index_of(name)
        if index is None:
            return False
        del self._known[name]
        with suppress(NetlinkError):  # its namespace has ended in this instant, and taken it along
            self._route.link("del", index=index)
        return True

    def ports(self, tag: str) -> list[str]:
        """The names of a home's ports."""
        names = (str(link.get("ifname")) for link in self._route.get_links())
        return [name for name in names if name.startswith(port_prefix(tag))]

    def make_bridge(self, addresses: Addresses, has_ipv6: bool) -> None:
        """Make the bridge, or have it as it should be when it is there."""
        index = self.index_of(addresses.bridge)
        if index is None:
            bridge = {"br_forward_delay": 0, "br_stp_state": 0, "br_mcast_snooping": 0}
            with _unless_there():
                self._route.link("add", ifname=addresses.bridge, kind="bridge", address=addresses.gateway_mac, **bridge)
            index = self.index_of(addresses.bridge)
        self._route.addr("replace", index=index, address=addresses.gateway4, prefixlen=addresses.subnet4.prefixlen)
        if has_ipv6:
            prefix = addresses.subnet6.prefixlen
            self._route.addr(
                "replace", index=index, family=_AF_INET6, address=addresses.gateway6, prefixlen=prefix, flags=_NO_DAD
            )
        self._route.link("set", index=index, state="up")

    def plug(self, addresses: Addresses, plug: Plug, netns_fd: int, has_ipv6: bool) -> None:
        """A veth pair: `eth0` in the namespace, its other end an isolated port of the bridge."""
        name, mac = addresses.port(plug.index), addresses.mac(plug.index)
        bridge = self.index_of(addresses.bridge)
        peer = {"ifname": _INNER, "address": mac, "net_ns_fd": netns_fd}
        self._route.link("add", ifname=name, kind="veth", peer=peer, master=bridge)
        port = self.index_of(name)
        # Nothing is learnt and nothing flooded: each job is where its entry says (bridge(8)).
        protection = {"isolated": 1, "learning": 0, "unicast_flood": 0, "mcast_flood": 0, "bcast_flood": 0}
        self._route.brport("set", index=port, **protection)
        self._write_entries(addresses, plug.index, port, bridge, mac, has_ipv6)
        self._limit(port, plug.ingress_bps)
        self._route.link("set", index=port, state="up")
        with _within(netns_fd) as inner:
            inner._set_up(addresses, plug, has_ipv6)
            inner._await_up(_INNER)
        self._await_up(name)
        self._await_up(addresses.bridge)

    def _write_entries(
        self, addresses: Addresses, index: int, port: int | None, bridge: int | None, mac: str, has_ipv6: bool
    ) -> None:
        """What ARP and neighbour discovery would find out, and a job could lie about."""
        self._route.fdb("replace", ifindex=port, lladdr=mac, flags=_NTF_MASTER, state=_STATIC)
        pairs = [(_AF_INET, addresses.ipv4(index))]
        pairs += [(_AF_INET6, addresses.ipv6(index))] if has_ipv6 else []
        for family, address in pairs:
            self._route.neigh("replace", family=family, ifindex=bridge, dst=address, lladdr=mac, state=_PERMANENT)

    def _set_up(self, addresses: Addresses, plug: Plug, has_ipv6: bool) -> None:
        """The job's end: addresses that are alone in their range, so that every packet goes by the gateway."""
        index = self.index_of(_INNER)
        families = [(_AF_INET, addresses.ipv4(plug.index), 32, addresses.gateway4)]
        families += [(_AF_INET6, addresses.ipv6(plug.index), 128, addresses.gateway6)] if has_ipv6 else []
        for family, address, prefix, _ in families:
            flags = {"flags": _NO_DAD} if family == _AF_INET6 else {}
            self._route.addr("add", index=index, family=family, address=address, prefixlen=prefix, **flags)
        self._limit(index, plug.egress_bps)
        self._route.link("set", index=index, state="up")
        for family, _, _, gateway in families:
            self._route.neigh(
                "replace", family=family, ifindex=index, dst=gateway, lladdr=addresses.gateway_mac, state=_PERMANENT
            )
            self._route.route("add", family=family, dst="default", gateway=gateway, oif=index, flags=_ONLINK)

    def _await_up(self, name: str) -> None:
        """Until the kernel has noticed, in a thread of its own, that the link has a carrier: before that it drops what
        is sent by it (net/core/link_watch.c), and a bridge forwards nothing to the port. Raises HostError.
        """
        deadline = time.monotonic() + _CARRIER_SECONDS
        while not self._is_up(name):
            if not select.select([self._changes], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise HostError("get a carrier on the link", name, None, "see `ip link` on this host")
            with suppress(BlockingIOError):
                while self._changes.recv(_LARGEST_CHANGE):
                    pass

    def _is_up(self, name: str) -> bool:
        link = self._route.get_links(self.index_of(name))[0]
        port_state = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_STATE")
        return link.get("operstate") == "UP" and port_state in (_FORWARDING, None)

    def _limit(self, index: int | None, bps: int | None) -> None:
        """tc-tbf(8): what this end of the link sends."""
        if bps is not None:
            burst = max(_LEAST_BURST_BYTES, bps // 100)
            self._route.tc("add", "tbf", index=index, handle="1:", rate=bps, burst=burst, latency=_QUEUED_FOR)


@contextmanager
def _unless_there() -> Iterator[None]:
    """Another network process of this home, whose worker was killed, may make it at the same moment."""
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


@contextmanager
def _within(netns_fd: int) -> Iterator[Links]:
    """The links of another namespace: a netlink socket stays in the one that it was made in."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    with ExitStack() as stack:
        try:
            syscalls.setns(netns_fd, syscalls.CLONE_NEWNET)
            try:
                found = stack.enter_context(_open())
            finally:
                syscalls.setns(own, syscalls.CLONE_NEWNET)
        finally:
            os.close(own)
        yield found


@contextmanager
def _open() -> Iterator[Links]:
    changes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    with changes, contextlib.closing(IPRoute()) as route:
        changes.bind((0, _RTMGRP_LINK))
        yield Links(route, changes)
