"""What a job needs of a host, and the name of the list it waits in.

A queue is one list per demand class: jobs of one class are alike to a host, so that a claim costs O(classes) and
never O(depth). Demands are rounded up, so that a few hundred classes are enough and a host is never overcommitted.
What a host has may lie between two steps: claim.lua sees to a job that asks for nearly all of it.

- cpus: to 0.05 up to 1, 0.25 up to 4, 0.5 up to 8, whole cpus above;
- memory, disk: to three significant bits after the first (at most 12.5 % more); 512M, 1.5G, 2G, 3G, 5G, 10G stay
  as they are, 2.1G becomes 2.25G;
- not stated: `-`, one slot's equal share of whatever host takes the job.

    ci@2000:4096:10240              2 cpus, 4 GiB, 10 GiB, from queue ci
    ci@-:-:-:p10                    a slot's share; priority 10 (-100 to 100, higher first, 0 is not written)
    ci@0:0:0:ldayfly.builds  a build, whose steps are jobs of their own
    ci@-:1024:-:hnode-7:ldisk=nvme,gpu   host node-7 only (a live directory), labels disk=nvme and gpu

Whatever else than A-Z a-z 0-9 _ . - is in a host or label is written ~HH, byte by byte: the name is a Redis key and
part of addresses in rq-dashboard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dayfly.jobs.build import BUILDS_LABEL

if TYPE_CHECKING:
    from dayfly.jobs.spec import JobSpec

MIN_PRIORITY = -100
MAX_PRIORITY = 100

_CPU_STEPS = ((1000, 50), (4000, 250), (8000, 500))
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")


@dataclass(frozen=True, slots=True)
class Capacity:
    """An amount of a host: what it offers, has free, or gives to one job."""

    cpus_milli: int
    memory_mib: int
    disk_mib: int

    def share(self, slots: int) -> Capacity:
        """One slot's equal share, at least one of each."""
        parts = (max(each // slots, 1) for each in (self.cpus_milli, self.memory_mib, self.disk_mib))
        return Capacity(*parts)

    def holds(self, need: Capacity) -> bool:
        return (
            need.cpus_milli <= self.cpus_milli and need.memory_mib <= self.memory_mib and need.disk_mib <= self.disk_mib
        )

    def __add__(self, other: Capacity) -> Capacity:
        return Capacity(
            self.cpus_milli + other.cpus_milli, self.memory_mib + other.memory_mib, self.disk_mib + other.disk_mib
        )

    def __sub__(self, other: Capacity) -> Capacity:
        return Capacity(
            self.cpus_milli - other.cpus_milli, self.memory_mib - other.memory_mib, self.disk_mib - other.disk_mib
        )


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job needs, already rounded up; None = one slot's share. `labels` are sorted pairs."""

    cpus_milli: int | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    priority: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    host: str | None = None

    @classmethod
    def of(cls, spec: JobSpec) -> Demand:
        if spec.build is not None:
            return cls._of_build(spec)
        limits = spec.limits
        return cls(
            cpus_milli=None if limits.cpus is None else round_cpus(limits.cpus),
            memory_mib=None if limits.memory_bytes is None else round_mib(limits.memory_bytes),
            disk_mib=None if limits.disk_bytes is None else round_mib(limits.disk_bytes),
            priority=spec.priority,
            labels=tuple(sorted(spec.labels.items())),
            host=spec.dir.host if spec.dir is not None else None,
        )

    @classmethod
    def _of_build(cls, spec: JobSpec) -> Demand:
        """Nothing but a worker that builds: its steps, jobs of that worker, ask for what they need."""
        labels = {**spec.labels, BUILDS_LABEL: ""}
        return cls(0, 0, 0, priority=spec.priority, labels=tuple(sorted(labels.items())))

    def need(self, share: Capacity) -> Capacity:
        """What this takes of a host whose slots have `share` each."""
        return Capacity(
            share.cpus_milli if self.cpus_milli is None else self.cpus_milli,
            share.memory_mib if self.memory_mib is None else self.memory_mib,
            share.disk_mib if self.disk_mib is None else self.disk_mib,
        )


def stated_need(spec: JobSpec) -> str:
    """cpus:memory:disk as the job states them, as in a class's name but not rounded to its steps."""
    if spec.build is not None:
        return "0:0:0"
    limits = spec.limits
    numbers = (
        None if limits.cpus is None else _ceil(limits.cpus * 1000),
        None if limits.memory_bytes is None else _whole_mib(limits.memory_bytes),
        None if limits.disk_bytes is None else _whole_mib(limits.disk_bytes),
    )
    return ":".join("-" if number is None else str(number) for number in numbers)


def round_cpus(cpus: float) -> int:
    """Thousandths of a cpu, rounded up to the next step."""
    milli = _ceil(cpus * 1000)
    step = next((step for limit, step in _CPU_STEPS if milli <= limit), 1000)
    return -(-milli // step) * step


def round_mib(size_bytes: int) -> int:
    """MiB, rounded up to a whole one and then to four significant bits."""
    mib = _whole_mib(size_bytes)
    shift = max(mib.bit_length() - 4, 0)
    return -(-mib >> shift) << shift


def class_name(queue: str, demand: Demand) -> str:
    """The name of the RQ list in which jobs of `queue` with this demand wait."""
    numbers = (demand.cpus_milli, demand.memory_mib, demand.disk_mib)
    parts = ["-" if number is None else str(number) for number in numbers]
    if demand.priority:
        parts.append(f"p{demand.priority}")
    if demand.host is not None:
        parts.append(f"h{_escape(demand.host)}")
    if demand.labels:
        parts.append("l" + ",".join(_label(key, value) for key, value in demand.labels))
    return f"{queue}@{':'.join(parts)}"


def _label(key: str, value: str) -> str:
    return f"{_escape(key)}={_escape(value)}" if value else _escape(key)


def _escape(text: str) -> str:
    if _PLAIN.issuperset(text):
        return text
    return "".join(chr(byte) if chr(byte) in _PLAIN else f"~{byte:02X}" for byte in text.encode())


def _whole_mib(size_bytes: int) -> int:
    return max(-(-size_bytes // (1 << 20)), 1)


def _ceil(value: float) -> int:
    nearest = round(value)
    return nearest if abs(value - nearest) < 1e-6 else int(value) + 1
