"""Who has which name and address on the bridge of one home: all worked out, nothing handed out.

A job's place is the index of the id range that its keeper holds a lock on (`idrange.py`), so two living jobs never
have the same, and the kernel frees it with the keeper. From tag and index follow the port's name on the host, the MAC
address, and both IP addresses, which is why the policy can name all of them beforehand (`ruleset.py`).
"""

import hashlib
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from dayfly.jobs.errors import HostError
from dayfly.runtime.network.names import bridge_name, port_prefix, table_name
from dayfly.runtime.network.ranges import Range, overlaps
from dayfly.runtime.network.routes import routes4
from dayfly.runtime.network.settings import NetworkSettings

_POOLS = tuple(ipaddress.IPv4Network(each) for each in ("10.208.0.0/12", "172.16.0.0/12", "192.168.0.0/16"))
_POOL_PREFIX = 20  # holds settings.JOBS_AT_MOST, the gateway, and the two that name network and broadcast
_REMEDY = "set [network] subnet to a range that this host does not use"
_BEFORE_JOBS = 2  # network and gateway


@dataclass(frozen=True, slots=True)
class Addresses:
    """The plan of one home's bridge."""

    tag: str
    subnet4: ipaddress.IPv4Network
    subnet6: ipaddress.IPv6Network
    jobs_at_most: int

    @property
    def bridge(self) -> str:
        return bridge_name(self.tag)

    @property
    def table(self) -> str:
        return table_name(self.tag)

    @property
    def capacity(self) -> int:
        """How many jobs have an address: the indices 0 to capacity - 1."""
        return max(0, min(self.jobs_at_most, self.subnet4.num_addresses - 1 - _BEFORE_JOBS))

    @property
    def gateway4(self) -> str:
        return str(self.subnet4[1])

    @property
    def gateway6(self) -> str:
        return str(self.subnet6[1])

    @property
    def gateway_mac(self) -> str:
        return self._mac(0xFFFF)

    def port(self, index: int) -> str:
        """At most 15 characters (IFNAMSIZ): two, the tag's eight, four."""
        return f"{port_prefix(self.tag)}{index:04x}"

    def mac(self, index: int) -> str:
        return self._mac(index)

    def ipv4(self, index: int) -> str:
        return str(self.subnet4[_BEFORE_JOBS + index])

    def ipv6(self, index: int) -> str:
        return str(self.subnet6[_BEFORE_JOBS + index])

    def index_of(self, packed: bytes) -> int | None:
        """Whose address it is, in the kernel's own form (inet_pton(3)); None for one that is no job's."""
        first = self.subnet4 if len(packed) == 4 else self.subnet6
        index = int.from_bytes(packed, "big") - int(first.network_address) - _BEFORE_JOBS
        return index if 0 <= index < self.capacity else None

    def _mac(self, number: int) -> str:
        """Locally administered (the 2), from the tag and a number."""
        octets = [0x02, *bytes.fromhex(self.tag)[:3], number >> 8, number & 0xFF]
        return ":".join(f"{octet:02x}" for octet in octets)


def find_addresses(settings: NetworkSettings, beyond: Iterable[Range] = ()) -> Addresses:
    """The home's plan: of the bridge that is there, of what the operator stated, or of what is free on this host.

    `beyond` is in use too, without a route of this namespace's own. Raises HostError.
    """
    tag, routes = settings.tag, list(routes4())
    taken = [*beyond, *(range4 for link, range4 in routes if range4.prefixlen and link != bridge_name(tag))]
    there = [range4 for link, range4 in routes if link == bridge_name(tag)]
    subnet6 = ipaddress.IPv6Network(settings.subnet6) if settings.subnet6 else _unique_subnet6(tag)
    if settings.subnet4 is None:
        return Addresses(tag, there[0] if there else _free_subnet4(tag, taken), subnet6, settings.jobs_at_most)
    stated = ipaddress.IPv4Network(settings.subnet4)
    if overlaps(stated, taken):
        raise HostError("use for jobs the range", settings.subnet4, None, _REMEDY, reason="it is in use on this host")
    return Addresses(tag, stated, subnet6, settings.jobs_at_most)


def _free_subnet4(tag: str, taken: Iterable[Range]) -> ipaddress.IPv4Network:
    """The first range from the home's own place on that no route of the host overlaps."""
    for pool in _POOLS:
        ranges = list(pool.subnets(new_prefix=_POOL_PREFIX))
        first = int(tag, 16) % len(ranges)
        for each in [*ranges[first:], *ranges[:first]]:
            if not overlaps(each, taken):
                return each
    raise HostError("find a free range of addresses for jobs", None, None, _REMEDY, reason="the host uses all of them")


def _unique_subnet6(tag: str) -> ipaddress.IPv6Network:
    """A unique local prefix whose 40 bits follow from the tag (RFC 4193): nobody else has it."""
    digest = hashlib.sha256(f"dayfly network {tag}".encode()).digest()
    return ipaddress.IPv6Network((int.from_bytes(b"\xfd" + digest[:5] + bytes(10), "big"), 64))
