"""The end of a job as its keeper saw it: `exit.json`, written whole by rename, read by whichever agent is there.

These are readings, not judgements: `jobs/verdict.py` makes the outcome of them. Keepers import this file: lean.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Self

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups.readings import Pressure, Victim
from dayfly.runtime.shape import fields_of

VERSION = 1
NAME = "exit.json"


@dataclass(frozen=True)
class Fault:
    """The container could not be made or kept: by us, or as this one job wants it."""

    step: str
    path: str | None
    errno: int | None
    message: str
    remedy: str | None = None
    is_jobs_own: bool = False

    @classmethod
    def of(cls, error: HostError) -> Self:
        return cls(error.step, error.path, error.errno, error.message, error.remedy, error.is_jobs_own)


@dataclass(frozen=True)
class Timings:
    image_ready_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    collected_at: float | None = None


@dataclass(frozen=True)
class Usage:
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    cpu_throttled_seconds: float | None = None
    memory_peak_bytes: int | None = None
    io_read_bytes: int | None = None
    io_written_bytes: int | None = None
    pids_peak: int | None = None
    disk_used_bytes: int | None = None


@dataclass(frozen=True)
class Oom:
    events: int
    victims: tuple[Victim, ...]
    limit_bytes: int | None
    peak_bytes: int | None


@dataclass(frozen=True)
class Disk:
    reached: bool
    used_bytes: int | None
    limit_bytes: int | None
    biggest: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Network:
    """Of a job on the bridge; `targets` are the addresses that were refused most often, with the times."""

    address4: str
    address6: str | None
    refused_connections: int = 0
    targets: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Artifact:
    """`path` is relative to /workspace, or absolute for what lay elsewhere in the root."""

    path: str
    size_bytes: int
    sha256: str
    mode: int
    mtime: float


@dataclass(frozen=True)
class LogSize:
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    dropped_bytes: int = 0


@dataclass(frozen=True)
class ServiceExit:
    """How a service went; `state` is one of jobs/services.py's. `ready_seconds`: from its start."""

    name: str
    state: str
    exit_code: int | None = None
    signal: int | None = None
    ready_seconds: float | None = None
    oom_events: int = 0
    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    log: LogSize = field(default_factory=LogSize)


@dataclass(frozen=True)
class Exit:
    cause: str  # exited, timed_out, cancelled, requeued, lease_lost, service_not_ready, fault
    exit_code: int | None = None
    signal: int | None = None
    spawn_errno: int | None = None
    fault: Fault | None = None
    message: str | None = None
    timings: Timings = field(default_factory=Timings)
    usage: Usage = field(default_factory=Usage)
    samples: tuple[tuple[float, float, int], ...] = ()  # seconds since start, cpu seconds, memory bytes
    oom: Oom | None = None
    disk: Disk | None = None
    network: Network | None = None
    pressure: Pressure | None = None
    warnings: tuple[str, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    log: LogSize = field(default_factory=LogSize)
    services: tuple[ServiceExit, ...] = ()
    effective: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        return json.dumps({"version": VERSION, **vars(self)}, default=fields_of, separators=(",", ":")).encode()

    @staticmethod
    def from_json(raw: bytes) -> "Exit":
        """Raises ValueError for anything that is not a whole exit of this version."""
        try:
            fields = json.loads(raw)
            if fields.pop("version") != VERSION:
                raise ValueError("exit of another version")
            return Exit(
                **{name: _READERS[name](value) if name in _READERS else value for name, value in fields.items()}
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a whole exit: {error!r}") from error


def _oom(fields: dict[str, Any] | None) -> Oom | None:
    return fields and Oom(**{**fields, "victims": tuple(Victim(**victim) for victim in fields["victims"])})  # type: ignore[return-value]


def _disk(fields: dict[str, Any] | None) -> Disk | None:
    return fields and Disk(**{**fields, "biggest": tuple((path, size) for path, size in fields["biggest"])})  # type: ignore[return-value]


def _network(fields: dict[str, Any] | None) -> Network | None:
    return fields and Network(**{**fields, "targets": tuple((address, times) for address, times in fields["targets"])})  # type: ignore[return-value]


_READERS: dict[str, Any] = {
    "fault": lambda fields: fields and Fault(**fields),
    "timings": lambda fields: Timings(**fields),
    "usage": lambda fields: Usage(**fields),
    "samples": lambda rows: tuple(tuple(row) for row in rows),
    "oom": _oom,
    "disk": _disk,
    "network": _network,
    "pressure": lambda fields: fields and Pressure(**fields),
    "warnings": tuple,
    "artifacts": lambda rows: tuple(Artifact(**row) for row in rows),
    "log": lambda fields: LogSize(**fields),
    "services": lambda rows: tuple(ServiceExit(**{**row, "log": LogSize(**row["log"])}) for row in rows),
}
