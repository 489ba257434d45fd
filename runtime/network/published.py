"""Ports of the host that lead to a job on the bridge, by a map of the policy's (`ruleset.py`, chain `publish`).

Who publishes a port holds it: no other program of the host can listen there, and no other job lead it elsewhere. What
is left in the map of a job that was killed is taken out when its link goes (`Bridge.sweep`), and by the next job that
has its port or its place.
"""

import contextlib
import socket
import struct
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from dayfly.jobs.errors import HostError
from dayfly.jobs.ports import PublishedPort
from dayfly.runtime.network import nft
from dayfly.runtime.network.elements import Sets

_NUMBERS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_MAPS = {"published4": socket.AF_INET, "published6": socket.AF_INET6}
_TRIES = 3
_KEY = struct.Struct(">B3xH2x")  # each part of a concatenation fills a whole register


@dataclass(frozen=True, slots=True)
class Element:
    """One entry of a map: `protocol` and `host_port` to `address` and `port`."""

    protocol: str
    host_port: int
    address: str
    port: int

    def text(self, table: str) -> str:
        """As nft(8) has it."""
        name = "published6" if ":" in self.address else "published4"
        pair = f"{self.protocol} . {self.host_port} : {self.address} . {self.port}"
        return f"element inet {table} {name} {{ {pair} }}\n"


@contextlib.contextmanager
def published(table: str, addresses: tuple[str, ...], ports: Iterable[PublishedPort]) -> Iterator[str]:
    """Lead the ports of every address of this host to the job that has these addresses, within the block.

    Gives the commands that did it, for a policy that has to be made anew. Raises `PortInUseError`, HostError.
    """
    wanted = tuple(ports)
    elements = [Element(port.protocol, port.host_port, address, port.port) for port in wanted for address in addresses]
    with contextlib.ExitStack() as held:
        for port in wanted:
            held.enter_context(_hold(port))
        created = "".join(f"create {each.text(table)}" for each in elements)
        _apply(lambda: _removal(table, wanted) + created)
        try:
            yield "".join(f"add {each.text(table)}" for each in elements)
        finally:
            _withdraw(table, elements)


class PortInUseError(HostError):
    """Another program of the host has the port, or another job."""


def entries(table: str) -> Iterator[Element]:
    """What the maps hold. Raises OSError."""
    with Sets(table) as sets:
        for name, family in _MAPS.items():
            yield from (_element(key, target, family) for key, target in sets.mapped(name))


def _hold(port: PublishedPort) -> socket.socket:
    """Bound, and never listening: what comes is led away before it gets here. Freed with the process."""
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    held = socket.socket(family, _KINDS[port.protocol])
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        held.bind(("", port.host_port))
    except OSError as error:
        held.close()
        remedy = "choose another one of the host's"
        raise PortInUseError("publish the port", port.describe(), error.errno, remedy) from error
    return held


def _apply(script: Callable[[], str]) -> None:
    """Have nft do what `script` says. Others take away entries as well, and one that is gone fails the whole of it: so
    it is made anew then. Raises HostError."""
    for tries_left in reversed(range(_TRIES)):
        try:
            nft.apply(script())
        except HostError:
            if not tries_left:
                raise
        else:
            return


def _withdraw(table: str, elements: Collection[Element]) -> None:
    """A job has its end whether or not that works: what stays is taken out with its link, or by the next job there."""
    try:
        _apply(lambda: _deletion(table, [each for each in entries(table) if each in elements]))
    except (HostError, OSError) as error:
        sys.stderr.write(f"dayfly: keeper: cannot take away a port that was published: {error}\n")


def _deletion(table: str, elements: Iterable[Element]) -> str:
    return "".join(f"delete {each.text(table)}" for each in elements)


def _removal(table: str, ports: tuple[PublishedPort, ...]) -> str:
    """What jobs that were killed have left at these ports of the host."""
    names = {(port.protocol, port.host_port) for port in ports}
    try:
        left = [each for each in entries(table) if (each.protocol, each.host_port) in names]
    except OSError as error:
        raise HostError("read the ports that are published in", table, error.errno) from error
    return _deletion(table, left)


def _element(key: bytes, target: bytes, family: socket.AddressFamily) -> Element:
    number, host_port = _KEY.unpack(key)
    protocol = next(name for name, each in _NUMBERS.items() if each == number)
    size = 16 if family == socket.AF_INET6 else 4
    (port,) = struct.unpack_from(">H", target, size)
    return Element(protocol, host_port, socket.inet_ntop(family, target[:size]), port)
