"""What this host's routes tell: which ranges are in use, and by which links the world is reached (proc(5))."""

import ipaddress
import struct
from collections.abc import Iterator

_IPV4, _IPV6 = "/proc/self/net/route", "/proc/self/net/ipv6_route"
_UP = 0x1  # RTF_UP
_REJECT = 0x200  # RTF_REJECT


def routes4() -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """(link, range) of each IPv4 route of the main table; a default route's range is 0.0.0.0/0."""
    return links_and_ranges4(_text(_IPV4))


def links_and_ranges4(text: str) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """The same of what such a file holds."""
    for line in text.splitlines()[1:]:
        words = line.split()
        link, destination, flags, mask = words[0], words[1], int(words[3], 16), words[7]
        if flags & _UP:
            yield link, ipaddress.IPv4Network((_host_order(destination), bin(_host_order(mask)).count("1")))


def uplinks() -> list[str]:
    """The links of this host's default routes, IPv4 and IPv6."""
    found = {link for link, range4 in routes4() if range4.prefixlen == 0}
    for line in _text(_IPV6).splitlines():
        words = line.split()
        destination, prefix, flags, link = words[0], words[1], int(words[8], 16), words[9]
        if destination == "0" * 32 and prefix == "00" and flags & _UP and not flags & _REJECT:
            found.add(link)
    return sorted(found)


def _text(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except FileNotFoundError:  # a kernel without that protocol
        return ""


def _host_order(text: str) -> int:
    """The kernel prints the four bytes of an address as one number of this machine."""
    return int.from_bytes(struct.pack("=I", int(text, 16)), "big")
