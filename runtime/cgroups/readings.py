"""What a job's control group can tell, as frozen values; None where this kernel does not count it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals over the group's life. Memory includes the page cache; io is what reached block devices."""

    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None
    cpu_throttled_seconds: float | None = None
    memory_peak_bytes: int | None = None
    io_read_bytes: int | None = None
    io_written_bytes: int | None = None
    pids_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """The two figures that are worth a graph, cheap enough to read every second."""

    cpu_seconds: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Victim:
    """A process that the kernel killed for the group's memory limit; its resident size at that moment."""

    name: str
    rss_bytes: int


@dataclass(frozen=True, slots=True)
class Oom:
    """`events` is the number of processes killed; `victims` those that the kernel's log still names."""

    events: int
    victims: tuple[Victim, ...] = ()


@dataclass(frozen=True)
class Pressure:
    """Seconds in which at least one of the job's tasks waited for the resource (PSI, `some`)."""

    cpu_seconds: float | None = None
    memory_seconds: float | None = None
    io_seconds: float | None = None
