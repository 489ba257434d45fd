"""Elements of the sets that nftables keeps for each job's address, read by netlink (linux/netfilter/nf_tables.h).

Keepers import this file: lean.
"""

import errno
import socket
import struct
from collections.abc import Iterator

from dayfly.runtime.network.nfnetlink import (
    NLM_F_ACK,
    NLM_F_DUMP,
    Attributes,
    Netfilter,
    attribute,
    attributes_of,
    each_attribute,
    nested,
)

_GETSETELEM = 10 << 8 | 13  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETSETELEM
_INET = 1  # NFPROTO_INET
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_LIST_ELEM = 1
_KEY, _TARGET, _EXPRESSION, _KEY_END, _EXPRESSIONS = 1, 2, 7, 10, 11  # NFTA_SET_ELEM_*
_DATA_VALUE, _EXPRESSION_NAME, _EXPRESSION_DATA, _COUNTER_PACKETS = 1, 1, 2, 2


class Sets:
    """The sets of one table, in the network namespace of this process, or of a socket's. A context manager."""

    def __init__(self, table: str, netfilter: socket.socket | None = None) -> None:
        self._table = attribute(_TABLE, table.encode() + b"\0")
        self._netfilter = Netfilter(netfilter)

    def __enter__(self) -> "Sets":
        return self

    def __exit__(self, *_: object) -> None:
        self._netfilter.__exit__()

    def packets(self, name: str, address: bytes) -> int | None:
        """What the counter of `address` says (0 without a counter); None when the set has no such element.

        Raises OSError.
        """
        key = nested(_KEY, attribute(_DATA_VALUE, address))
        question = (self._table, _named(name), nested(_ELEMENTS, nested(_LIST_ELEM, key)))
        try:
            answers = self._netfilter.ask(_GETSETELEM, _INET, question, NLM_F_ACK)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return next((_packets(element) for body in answers for element in _elements(body)), None)

    def of(self, name: str, address: bytes) -> Iterator[tuple[str, str, int]]:
        """Of a set of pairs those that begin with `address`: first and last of the other one, and the counter.

        Raises OSError.
        """
        family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
        for body in self._netfilter.ask(_GETSETELEM, _INET, (self._table, _named(name)), NLM_F_DUMP):
            for element in _elements(body):
                key = attributes_of(element.get(_KEY, b"")).get(_DATA_VALUE, b"")
                end = attributes_of(element.get(_KEY_END, b"")).get(_DATA_VALUE, key)
                if key.startswith(address):
                    first, last = (socket.inet_ntop(family, each[len(address) :]) for each in (key, end))
                    yield first, last, _packets(element)

    def mapped(self, name: str) -> Iterator[tuple[bytes, bytes]]:
        """Of a map each key and what it leads to, in the kernel's own form. Raises OSError."""
        for body in self._netfilter.ask(_GETSETELEM, _INET, (self._table, _named(name)), NLM_F_DUMP):
            for element in _elements(body):
                key, target = (attributes_of(element.get(kind, b"")).get(_DATA_VALUE, b"") for kind in (_KEY, _TARGET))
                yield key, target


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _named(name: str) -> bytes:
    return attribute(_SET, name.encode() + b"\0")


def _elements(body: bytes) -> Iterator[Attributes]:
    for _, element in each_attribute(attributes_of(body).get(_ELEMENTS, b"")):
        yield attributes_of(element)


def _packets(element: Attributes) -> int:
    """Of the element's counter, whether it stands alone or in a list; 0 where it has none."""
    alone = [element[_EXPRESSION]] if _EXPRESSION in element else []
    for raw in (*alone, *(each for _, each in each_attribute(element.get(_EXPRESSIONS, b"")))):
        expression = attributes_of(raw)
        if expression.get(_EXPRESSION_NAME) == b"counter\0":
            return int(struct.unpack(">Q", attributes_of(expression[_EXPRESSION_DATA])[_COUNTER_PACKETS])[0])
    return 0
