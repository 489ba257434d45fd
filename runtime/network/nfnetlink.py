"""Netlink messages of netfilter, as little of them as reading two tables takes (linux/netfilter/nfnetlink.h).

Keepers read the counters of their job at its end, in its way; pyroute2 would take them 130 ms to import. Lean.
"""

import os
import random
import socket
import struct
from collections.abc import Iterable, Iterator

NETLINK_NETFILTER = 12  # netlink(7); the socket module has no name for it
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_LARGEST = 1 << 17
_SECONDS = struct.pack("ll", 5, 0)

Attributes = dict[int, bytes]


def attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def attributes_of(raw: bytes) -> Attributes:
    """The attributes in `raw` by kind; of several of one kind the last."""
    return dict(each_attribute(raw))


def each_attribute(raw: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start + 4 <= len(raw):
        length, kind = _ATTRIBUTE.unpack_from(raw, start)
        if length < 4:
            return
        yield kind & _NLA_TYPE_MASK, raw[start + 4 : start + length]
        start += length + (-length % 4)


class Netfilter:
    """A conversation with netfilter in the network namespace of this process, or of `own`. A context manager."""

    def __init__(self, own: socket.socket | None = None) -> None:
        self._socket = own.dup() if own else socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SECONDS)
        self._sequence = random.getrandbits(24)  # a late answer to an earlier conversation is none of this one

    def __enter__(self) -> "Netfilter":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, family: int, attributes: Iterable[bytes], flags: int = NLM_F_ACK) -> list[bytes]:
        """Send one request; the bodies of the answers. Raises OSError with what the kernel says."""
        self._sequence += 1
        body = struct.pack("=BBH", family, 0, 0) + b"".join(attributes)
        length = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(length, kind, NLM_F_REQUEST | flags, self._sequence, 0) + body)
        return list(self._answers())

    def _answers(self) -> Iterator[bytes]:
        while True:
            received = self._socket.recv(_LARGEST)
            start = 0
            while start + _HEADER.size <= len(received):
                length, kind, _, sequence, _ = _HEADER.unpack_from(received, start)
                body = received[start + _HEADER.size : start + length]
                start += length + (-length % 4)
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    (number,) = struct.unpack_from("=i", body)
                    if number:
                        raise OSError(-number, os.strerror(-number))
                    return
                yield body[4:]
