"""Ranges of addresses: which are not the internet, and what lies within what.

Not routed world-wide is what the IANA registries of special-purpose addresses say so of (RFC 6890), and every IPv6
range in which an IPv4 address can be hidden: mapped, compatible, 6to4, and NAT64 of each special IPv4 range.
"""

import ipaddress
from collections.abc import Iterable

from dayfly.jobs.ranges import INTERNET

Range = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",  # link-local, and with it the metadata of every cloud
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
_SPECIAL6 = (
    "::/96",  # unspecified, loopback, IPv4-compatible
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",  # unique local: fd00:ec2::254 is Amazon's metadata
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def special4() -> list[Range]:
    return [ipaddress.IPv4Network(each) for each in _SPECIAL4]


def special6() -> list[Range]:
    return [*(ipaddress.IPv6Network(each) for each in _SPECIAL6), *(_behind_nat64(each) for each in special4())]


def of_version(version: int, texts: Iterable[str]) -> list[Range]:
    """Those ranges of one IP version, without the word `internet`."""
    found = (ipaddress.ip_network(text) for text in texts if text != INTERNET)
    return [each for each in found if each.version == version]


def is_within(text: str, allowed: Iterable[str]) -> bool:
    """Whether everything that `text` (a range, or `internet`) names lies in one of `allowed`."""
    allowed = tuple(allowed)
    if text in allowed:
        return True
    if text == INTERNET:
        return False
    wanted = ipaddress.ip_network(text)
    if INTERNET in allowed and not overlaps(wanted, special4() if wanted.version == 4 else special6()):
        return True
    return any(wanted.subnet_of(each) for each in of_version(wanted.version, allowed))  # type: ignore[arg-type]


def overlaps(wanted: Range, others: Iterable[Range]) -> bool:
    return any(wanted.overlaps(each) for each in others if each.version == wanted.version)


def _behind_nat64(range4: Range) -> Range:
    """The IPv6 addresses by which a NAT64 gateway reaches `range4` (RFC 6052)."""
    first = int(_NAT64.network_address) | int(range4.network_address)
    return ipaddress.IPv6Network((first, 96 + range4.prefixlen))
