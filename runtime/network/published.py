"""Ports of the host that lead to a job on the bridge, by a map of the policy's (`ruleset.py`, chain `publish`).

Who publishes a port holds it: no other program of the host can listen there, and no other job lead it elsewhere. What
is left in the map of a job that was killed goes with the next one that has its port, or its place (`job_elements.py`).
"""

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from dayfly.jobs.errors import HostError
from dayfly.jobs.ports import PublishedPort
from dayfly.runtime.network import nft
from dayfly.runtime.network.elements import Sets, packed

_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_KEY = struct.Struct(">B3xH2x")  # each part of a concatenation fills a whole register


@dataclass(frozen=True, slots=True)
class Element:
    """One entry of the map: `protocol` and `host_port` to `address` and `port`."""

    protocol: str
    host_port: int
    address: str
    port: int

    @property
    def name(self) -> str:
        """Which map has it."""
        return "published6" if ":" in self.address else "published4"

    @property
    def key(self) -> bytes:
        """As netlink has it."""
        return _KEY.pack(_NUMBERS[self.protocol], self.host_port)

    def text(self, table: str) -> str:
        """As nft(8) has it."""
        pair = f"{self.protocol} . {self.host_port} : {self.address} . {self.port}"
        return f"element inet {table} {self.name} {{ {pair} }}\n"


@contextlib.contextmanager
def published(table: str, addresses: tuple[str, ...], port: PublishedPort) -> Iterator[None]:
    """Lead the port of every address of this host to the job that has these addresses, within the block.

    Raises HostError when another program has the port.
    """
    elements = [Element(port.protocol, port.host_port, address, port.port) for address in addresses]
    with _held(port):
        nft.apply("".join(f"{_removal(table, each)}create {each.text(table)}" for each in elements))
        try:
            yield
        finally:
            nft.apply("".join(f"delete {each.text(table)}" for each in elements))


def leading_to(table: str, address: str) -> Iterator[Element]:
    """What is left in the map of a job that had this address. Raises OSError."""
    raw = packed(address)
    name = "published6" if ":" in address else "published4"
    with Sets(table) as sets:
        for key, target in sets.mapped(name):
            if target.startswith(raw):
                yield _element(key, target, address)


def _held(port: PublishedPort) -> socket.socket:
    """Bound, and never listening: what comes is led away before it gets here. Freed with the process."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    held = socket.socket(family, _KINDS[port.protocol])
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        held.bind(("", port.host_port))
    except OSError as error:
        held.close()
        raise HostError("publish the port", port.describe(), error.errno, "choose another one of the host's") from error
    return held


def _removal(table: str, wanted: Element) -> str:
    """What a job that was killed has left at this port of the host; "" when it has left nothing."""
    with Sets(table) as sets:
        left = [_element(key, target, wanted.address) for key, target in sets.mapped(wanted.name) if key == wanted.key]
    return "".join(f"delete {each.text(table)}" for each in left)


def _element(key: bytes, target: bytes, address: str) -> Element:
    number, host_port = _KEY.unpack(key)
    protocol = next(name for name, each in _NUMBERS.items() if each == number)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    size = 16 if family == socket.AF_INET6 else 4
    (port,) = struct.unpack_from(">H", target, size)
    return Element(protocol, host_port, socket.inet_ntop(family, target[:size]), port)
