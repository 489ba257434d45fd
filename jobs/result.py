"""How a job went: the Result that people, scripts and `dayfly status --json` see, under the same names.

Whole numbers and seconds with the unit in the name; times are Unix seconds. to_json() and from_json() are exact
inverses, and from_json() passes over keys that a newer Dayfly added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from dayfly.jobs.errors import JobFailed
from dayfly.jobs.frozen import FrozenMap
from dayfly.jobs.network import NetworkFacts
from dayfly.jobs.plain import from_plain, reads, to_plain, tuple_of
from dayfly.jobs.service_result import ServiceResult
from dayfly.jobs.signals import signal_name
from dayfly.jobs.state import Outcome, State, exit_code_of

QUEUE_TIMEOUT = "queue_timeout"  # `reason` of a job that timed out before any worker took it
FOREIGN = "foreign"  # `reason` of what a plain RQ producer enqueued and no worker may run
UNTRUSTED = "untrusted"  # `reason` of a job that is not signed by a key which its worker trusts
SERVICE_NOT_READY = "service_not_ready"  # `reason` of a job that never ran, because a service of its own did not serve
CLIENT_LOST = "client_lost"  # `reason` of a job cancelled because its `dayfly run` has gone

_ENDINGS = {
    Outcome.SUCCEEDED: "succeeded",
    Outcome.FAILED: "failed",
    Outcome.SIGNALED: "was ended by a signal",
    Outcome.TIMED_OUT: "ran longer than it may",
    Outcome.OUT_OF_MEMORY: "ran out of memory",
    Outcome.DISK_FULL: "ran out of disk",
    Outcome.CANCELLED: "was cancelled",
    Outcome.LOST: "was lost",
    Outcome.REJECTED: "was rejected",
}


@dataclass(frozen=True, slots=True)
class ImageUsed:
    """The image as the document named it, and the digest that was run."""

    ref: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class EffectiveLimits:
    """The limits that held, after defaults, as read back from the kernel where it can tell. None: no limit."""

    cpus: float | None = None
    cpu_burst_seconds: float | None = None
    cpu_weight: int | None = None
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    disk_bytes: int | None = None
    pids: int | None = None
    shm_bytes: int | None = None
    timeout_seconds: float | None = None
    stop_grace_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What held beside the limits, after defaults: how often it would be tried again after what, what is collected."""

    retry_max: int = 0
    retry_when: tuple[str, ...] = field(default=(), metadata=reads(tuple))
    retry_exit_codes: tuple[int, ...] = field(default=(), metadata=reads(tuple))
    artifacts_when: str | None = None


@dataclass(frozen=True, slots=True)
class Timings:
    """When each phase was reached; None: never (or, of a job that is not finished, not yet)."""

    queued_at: float | None = None
    claimed_at: float | None = None
    image_ready_at: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    collected_at: float | None = None
    discarded_at: float | None = None

    @property
    def queue_seconds(self) -> float | None:
        """From the queue to a worker."""
        return _between(self.queued_at, self.claimed_at)

    @property
    def image_seconds(self) -> float | None:
        return _between(self.claimed_at, self.image_ready_at)

    @property
    def start_seconds(self) -> float | None:
        """From a worker's claim to the start of the command, image included."""
        return _between(self.claimed_at, self.started_at)

    @property
    def run_seconds(self) -> float | None:
        return _between(self.started_at, self.finished_at)

    @property
    def collect_seconds(self) -> float | None:
        return _between(self.finished_at, self.collected_at)

    @property
    def total_seconds(self) -> float | None:
        """From the queue to the end of collection, or of the command where nothing was collected."""
        return _between(self.queued_at, self.collected_at if self.collected_at is not None else self.finished_at)

    def durations(self) -> dict[str, float | None]:
        names = ("queue_seconds", "image_seconds", "start_seconds", "run_seconds", "collect_seconds", "total_seconds")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, slots=True)
class Usage:
    """What the job used. None: this host could not tell."""

    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    cpu_throttled_seconds: float | None = None
    memory_peak_bytes: int | None = None
    io_read_bytes: int | None = None
    io_written_bytes: int | None = None
    pids_peak: int | None = None
    disk_used_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One reading over the job's life, `seconds` after its start."""

    seconds: float
    cpu_seconds: float
    memory_bytes: int

    @classmethod
    def read(cls, value: Any) -> Sample:
        return cls(*value) if isinstance(value, list | tuple) else from_plain(cls, value)


@dataclass(frozen=True, slots=True)
class OomVictim:
    """A process that the kernel killed for memory."""

    name: str
    rss_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class OomFacts:
    events: int = 0
    victims: tuple[OomVictim, ...] = field(default=(), metadata=reads(tuple_of(partial(from_plain, OomVictim))))
    limit_bytes: int | None = None
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PathSize:
    """A path in the container and the disk it takes."""

    path: str
    size_bytes: int

    @classmethod
    def read(cls, value: Any) -> PathSize:
        return cls(*value) if isinstance(value, list | tuple) else from_plain(cls, value)


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """`reached`: the quota was met while the job ran. `biggest` is filled then, largest first."""

    reached: bool = False
    used_bytes: int | None = None
    limit_bytes: int | None = None
    biggest: tuple[PathSize, ...] = field(default=(), metadata=reads(tuple_of(PathSize.read)))


@dataclass(frozen=True, slots=True)
class Pressure:
    """Seconds that the job's processes stalled for each resource (PSI, "some")."""

    cpu_seconds: float | None = None
    memory_seconds: float | None = None
    io_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ArtifactEntry:
    """One file that was kept, at its path relative to /workspace (or absolute, from elsewhere in the root)."""

    path: str
    size_bytes: int
    sha256: str
    mode: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at the job, from the first on; `why` says what ended it when that was not the job."""

    number: int
    host: str | None = None
    worker: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    outcome: Outcome | None = field(default=None, metadata=reads(Outcome))
    exit_code: int | None = None
    signal: int | None = None
    why: str | None = None


@dataclass(frozen=True, slots=True)
class LogSummary:
    """Where the whole log lies, what the job wrote, and how much of it was left out by the cap."""

    location: str | None = None
    stdout_bytes: int = 0
    stderr_bytes: int = 0
    dropped_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """A job's state and, when it is finished, its whole story.

    `exit_code` and `signal` are the main process's own; `reason` is a word for a cause that the outcome alone does
    not tell (QUEUE_TIMEOUT, SERVICE_NOT_READY, CLIENT_LOST, UNTRUSTED); `message` is a sentence for people; `kept` is
    the directory on `host` that `keep` has left.
    """

    id: str
    name: str | None = None
    state: State = field(default=State.QUEUED, metadata=reads(State))
    outcome: Outcome | None = field(default=None, metadata=reads(Outcome))
    exit_code: int | None = None
    signal: int | None = None
    reason: str | None = None
    message: str | None = None
    queue: str | None = None
    host: str | None = None
    worker: str | None = None
    image: ImageUsed | None = field(default=None, metadata=reads(partial(from_plain, ImageUsed)))
    limits: EffectiveLimits | None = field(default=None, metadata=reads(partial(from_plain, EffectiveLimits)))
    policy: Policy | None = field(default=None, metadata=reads(partial(from_plain, Policy)))
    features: Mapping[str, Any] = field(default_factory=dict)
    timings: Timings = field(default=Timings(), metadata=reads(partial(from_plain, Timings)))
    usage: Usage = field(default=Usage(), metadata=reads(partial(from_plain, Usage)))
    samples: tuple[Sample, ...] = field(default=(), metadata=reads(tuple_of(Sample.read)))
    oom: OomFacts | None = field(default=None, metadata=reads(partial(from_plain, OomFacts)))
    disk: DiskFacts | None = field(default=None, metadata=reads(partial(from_plain, DiskFacts)))
    network: NetworkFacts | None = field(default=None, metadata=reads(partial(from_plain, NetworkFacts)))
    pressure: Pressure | None = field(default=None, metadata=reads(partial(from_plain, Pressure)))
    warnings: tuple[str, ...] = field(default=(), metadata=reads(tuple))
    artifacts: tuple[ArtifactEntry, ...] = field(
        default=(), metadata=reads(tuple_of(partial(from_plain, ArtifactEntry)))
    )
    services: tuple[ServiceResult, ...] = field(
        default=(), metadata=reads(tuple_of(partial(from_plain, ServiceResult)))
    )
    attempts: tuple[Attempt, ...] = field(default=(), metadata=reads(tuple_of(partial(from_plain, Attempt))))
    kept: str | None = None
    log: LogSummary = field(default=LogSummary(), metadata=reads(partial(from_plain, LogSummary)))

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", FrozenMap(self.features))

    @property
    def is_finished(self) -> bool:
        return self.state is State.FINISHED

    @property
    def is_success(self) -> bool:
        return self.outcome is Outcome.SUCCEEDED

    @property
    def exit_status(self) -> int:
        """The exit code of `dayfly run` for this job; ValueError while it has no outcome."""
        return exit_code_of(self)

    def check(self) -> Result:
        """This result, when the job succeeded; raises JobFailed, which carries it, otherwise."""
        if self.outcome is not Outcome.SUCCEEDED:
            raise JobFailed(self)
        return self

    @property
    def ending(self) -> str:
        """The end in words that follow the job's name: "failed with exit code 3", "is running"."""
        if self.outcome is None:
            return f"is {self.state}"
        if self.reason == QUEUE_TIMEOUT:
            return "waited in the queue longer than it may"
        if self.reason == SERVICE_NOT_READY and self.outcome is Outcome.FAILED:
            return "failed before it began"
        if self.reason == CLIENT_LOST and self.outcome is Outcome.CANCELLED:
            return "was cancelled, since the client that waited for it has gone"
        if self.outcome is Outcome.SIGNALED and self.signal is not None:
            return f"was ended by {signal_name(self.signal)}"
        words = _ENDINGS[self.outcome]
        if self.outcome in (Outcome.FAILED, Outcome.DISK_FULL) and self.exit_code is not None:
            return f"{words} with exit code {self.exit_code}"
        return words

    def describe(self) -> str:
        """`ending`, and the message that says why: "was rejected: no image 'debian:13'"."""
        return f"{self.ending}: {self.message}" if self.message else self.ending

    def to_json(self) -> dict[str, Any]:
        """JSON values, the durations between the timings included for readers."""
        document: dict[str, Any] = to_plain(self)
        document["timings"].update(self.timings.durations())
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Result:
        return from_plain(cls, document)


def _between(start: float | None, end: float | None) -> float | None:
    """Seconds from `start` to `end`; never negative, since the two may be read on hosts with clocks apart."""
    return None if start is None or end is None else max(end - start, 0.0)
