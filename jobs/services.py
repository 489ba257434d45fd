"""Services of a job: further containers that live beside it and end with it (a database, a cache, a server to test).

As spec.py, whose JobSpec holds them: frozen values, checked at the door. Keepers import this file: lean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dayfly.jobs.frozen import FrozenMap
from dayfly.jobs.ports import PublishedPort
from dayfly.jobs.signals import signal_name

DEFAULT_READY_TIMEOUT_SECONDS = 60.0

_EMPTY: Mapping[str, str] = FrozenMap()


class ServiceState(StrEnum):
    """How a service went."""

    STOPPED = "stopped"  # it served until the job had ended, and was stopped then
    EXITED = "exited"  # it ended by itself while the job ran
    OUT_OF_MEMORY = "out_of_memory"  # as EXITED, by a memory limit: its own or the job's
    NOT_READY = "not_ready"  # the job was never started: this service is why, or was not ready either
    NOT_STARTED = "not_started"  # another one failed, or the job was stopped, before its turn


@dataclass(frozen=True, slots=True)
class Ready:
    """How a service shows that it serves; one of the two: it accepts connections at 127.0.0.1 on `tcp_port`, or
    `command`, run in its container, exits with 0."""

    tcp_port: int | None = None
    command: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"a connection to 127.0.0.1:{self.tcp_port}" if self.tcp_port else f"`{' '.join(self.command)}`"


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What one service may use of what the job has; the job's own limits hold for all together."""

    cpus: float | None = None
    memory_bytes: int | None = None
    pids: int | None = None
    shm_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One service. `name` is its host name too; without `ready` it counts as ready once its program runs; without
    `stop_grace_seconds` it is killed when the job has ended."""

    name: str
    image: str
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    workdir: str | None = None
    user: str | None = None
    ready: Ready | None = None
    ready_timeout_seconds: float | None = None
    limits: ServiceLimits = ServiceLimits()
    ports: tuple[PublishedPort, ...] = ()
    stop_signal: int | None = None
    stop_grace_seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "env", FrozenMap(self.env))

    def to_document(self) -> dict[str, Any]:
        """The canonical long form."""
        fields = {
            "name": self.name,
            "image": self.image,
            "entrypoint": None if self.entrypoint is None else list(self.entrypoint),
            "command": None if self.command is None else list(self.command),
            "env": dict(self.env) or None,
            "workdir": self.workdir,
            "user": self.user,
            "ready": None if self.ready is None else _ready_document(self.ready),
            "ready_timeout": self.ready_timeout_seconds,
            "limits": _limits_document(self.limits) or None,
            "ports": [port.to_document() for port in self.ports] or None,
            "stop_signal": None if self.stop_signal is None else _signal_document(self.stop_signal),
            "stop_grace": self.stop_grace_seconds,
        }
        return {key: value for key, value in fields.items() if value is not None}


def _ready_document(ready: Ready) -> dict[str, Any]:
    return {"tcp": ready.tcp_port} if ready.tcp_port is not None else {"cmd": list(ready.command)}


def _limits_document(limits: ServiceLimits) -> dict[str, Any]:
    fields = {
        "cpus": limits.cpus,
        "memory": limits.memory_bytes,
        "pids": limits.pids,
        "shm": limits.shm_bytes,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _signal_document(number: int) -> str | int:
    name = signal_name(number)
    return number if name.isdigit() else name
