"""Ports of a host that lead to a service of a job: as documents and configuration write them, and as values.

Keepers import this file: lean.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

LAST = 65535
PROTOCOLS = ("tcp", "udp")


@dataclass(frozen=True, slots=True)
class PublishedPort:
    """`host_port`, of every address of the worker's host but loopback, leads to `port` of the job's network."""

    host_port: int
    port: int
    protocol: str = "tcp"

    def to_document(self) -> dict[str, Any]:
        return {"host": self.host_port, "port": self.port, "protocol": self.protocol}

    def describe(self) -> str:
        """`8080:80/tcp`, as `docker run --publish` has it."""
        return f"{self.host_port}:{self.port}/{self.protocol}"


def check_port_range(text: str) -> str:
    """`8080` or `8000-8999`. Raises ValueError."""
    first, dash, last = text.partition("-")
    ends = (first, last if dash else first)
    bounds = [int(each) if each.isascii() and each.isdecimal() and len(each) < 6 else 0 for each in ends]
    if not 1 <= bounds[0] <= bounds[1] <= LAST:
        raise ValueError(f"must be a port such as 8080, or a range such as 8000-8999, got {text!r}")
    return text


def is_port_within(port: int, ranges: Iterable[str]) -> bool:
    """Whether one of `ranges`, each as check_port_range() accepts it, has the port."""
    bounds = (text.partition("-") for text in ranges)
    return any(int(first) <= port <= int(last or first) for first, _, last in bounds)
