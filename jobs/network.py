"""What of the network a job asks for (its spec), and what it had (its result)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dayfly.jobs.plain import from_plain, reads, tuple_of


class Network(StrEnum):
    """What of the network a job sees. AUTO: a bridge on a worker that has one, else nothing."""

    NONE = "none"
    BRIDGE = "bridge"
    HOST = "host"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """`allow`: all that the job reaches, of what its worker's operator allows; None: what every job may."""

    mode: Network = Network.NONE
    allow: tuple[str, ...] | None = None

    def to_document(self) -> str | dict[str, Any] | None:
        """As short as it may be; None is what a document need not say."""
        if self.allow is not None:
            return {"mode": self.mode.value, "allow": list(self.allow)}
        return None if self.mode is Network.NONE else self.mode.value


@dataclass(frozen=True, slots=True)
class NetworkLimit:
    """Bytes a second that a job receives and sends by its bridge; None is unlimited."""

    ingress_bps: int | None = None
    egress_bps: int | None = None


NO_NETWORK, NO_LIMIT = NetworkUse(), NetworkLimit()


@dataclass(frozen=True, slots=True)
class RefusedTarget:
    """An address that the network's policy kept from the job, and how often it was tried."""

    address: str
    connections: int

    @classmethod
    def read(cls, value: Any) -> RefusedTarget:
        return cls(*value) if isinstance(value, list | tuple) else from_plain(cls, value)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """The network that the job had: `mode` is none, bridge or host; `why` says it of a job that had none by `auto`.

    `refused_connections` counts every attempt that policy refused, `refused` names the addresses tried most often.
    """

    mode: str
    addresses: tuple[str, ...] = field(default=(), metadata=reads(tuple))
    refused_connections: int = 0
    refused: tuple[RefusedTarget, ...] = field(default=(), metadata=reads(tuple_of(RefusedTarget.read)))
    why: str | None = None
