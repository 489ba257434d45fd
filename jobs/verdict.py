"""What a job's end means: its outcome, whether to try again, and the words for people.

The end of the main process decides. Cancel beats timeout beats out of memory beats a full disk; exit 0 is success
even if a child was killed for memory or met a full disk, with a warning that says so.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dayfly.jobs.state import Cause, Outcome
from dayfly.jobs.units import format_duration, format_size

if TYPE_CHECKING:
    from dayfly.jobs.network import NetworkFacts
    from dayfly.jobs.result import DiskFacts, OomFacts, Pressure, Result
    from dayfly.jobs.spec import Retry

SUMMARY_LINES = 6

# A host in trouble, not a job that asks for what it cannot have: another attempt, elsewhere, may do.
_TRANSIENT = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EROFS,
    }
)


@dataclass(frozen=True, slots=True)
class Ending:
    """The facts of exit.json that decide. `fault_errno` is that of our own failure (cause FAULT), if it had one."""

    cause: Cause
    exit_code: int | None = None
    signal: int | None = None
    oom_events: int = 0
    is_disk_reached: bool = False
    fault_errno: int | None = None


def decide(ending: Ending) -> Outcome | None:
    """The outcome, or None when the job goes back to the queue without one (cause REQUEUED)."""
    match ending.cause:
        case Cause.REQUEUED:
            return None
        case Cause.CANCELLED:
            return Outcome.CANCELLED
        case Cause.TIMED_OUT:
            return Outcome.TIMED_OUT
        case Cause.LEASE_LOST:
            return Outcome.LOST
        case Cause.SERVICE_NOT_READY:
            return Outcome.FAILED
        case Cause.FAULT:
            return Outcome.LOST if ending.fault_errno in _TRANSIENT else Outcome.REJECTED
        case Cause.EXITED:
            return _decide_exited(ending)


def _decide_exited(ending: Ending) -> Outcome:
    if ending.exit_code == 0:
        return Outcome.SUCCEEDED
    if ending.oom_events:
        return Outcome.OUT_OF_MEMORY
    if ending.is_disk_reached:
        return Outcome.DISK_FULL
    return Outcome.SIGNALED if ending.signal is not None else Outcome.FAILED


def warnings_of(ending: Ending) -> tuple[str, ...]:
    """What the outcome hides: memory or disk that ran out in a job that succeeded all the same."""
    if ending.cause is not Cause.EXITED or ending.exit_code != 0:
        return ()
    warnings = []
    if ending.oom_events:
        times = "a process" if ending.oom_events == 1 else f"{ending.oom_events} processes"
        warnings.append(f"the kernel killed {times} for memory, yet the job's main process ended with 0")
    if ending.is_disk_reached:
        warnings.append("the disk quota was reached, yet the job's main process ended with 0")
    return tuple(warnings)


def should_retry(policy: Retry, outcome: Outcome, exit_code: int | None, attempt: int) -> bool:
    """Whether another attempt follows the `attempt`th (from 1 on). Success, cancel and refusal are final."""
    if attempt > policy.max or outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED, Outcome.REJECTED):
        return False
    return outcome in policy.when or (exit_code is not None and exit_code in policy.exit_codes)


def summary(result: Result) -> list[str]:
    """What `run` says of a job that did not succeed: at most six lines, the most telling first."""
    lines = [_headline(result), *_reasons(result, biggest=3), *_kept(result), *_stalls(result)]
    lines += [f"warning: {warning}" for warning in result.warnings]
    if len(lines) <= SUMMARY_LINES:
        return lines
    return [*lines[: SUMMARY_LINES - 1], f"… `dayfly explain {result.id}` says the rest"]


def explain(result: Result) -> list[str]:
    """The whole story, for `dayfly explain`."""
    return [
        _headline(result),
        *_reasons(result, biggest=10),
        *_kept(result),
        *_memory_course(result),
        *_stalls(result),
        *(f"warning: {warning}" for warning in result.warnings),
        *(service.describe(result.id) for service in result.services),
        *_network(result),
        *_usage(result),
        *_phases(result),
        *_attempts(result),
    ]


def _kept(result: Result) -> list[str]:
    return [f"kept: {result.kept} on {result.host}"] if result.kept else []


def _headline(result: Result) -> str:
    name = f"job {result.id}" + (f" ({result.name})" if result.name else "")
    seconds = result.timings.run_seconds
    took = f" after {format_duration(seconds)}" if result.is_finished and seconds is not None else ""
    return f"{name} {result.ending}{took}" + (f": {result.message}" if result.message else "")


def _reasons(result: Result, biggest: int) -> list[str]:
    lines = []
    if result.oom is not None and result.oom.events:
        lines += _oom_lines(result.oom)
    if result.disk is not None and result.disk.reached:
        lines += _disk_lines(result.disk, biggest)
    if result.network is not None and result.network.refused_connections:
        lines += _refused_lines(result.network, biggest)
    return lines


def _oom_lines(oom: OomFacts) -> list[str]:
    facts = [f"{oom.events} out-of-memory event" + ("" if oom.events == 1 else "s")]
    facts += [f"limit {format_size(oom.limit_bytes)}"] if oom.limit_bytes is not None else []
    facts += [f"peak {format_size(oom.peak_bytes)}"] if oom.peak_bytes is not None else []
    victims = [
        _printable(each.name) + (f" ({format_size(each.rss_bytes)} resident)" if each.rss_bytes is not None else "")
        for each in oom.victims[:5]
    ]
    return [f"memory: {', '.join(facts)}", *([f"memory: killed {', '.join(victims)}"] if victims else [])]


def _disk_lines(disk: DiskFacts, biggest: int) -> list[str]:
    used = format_size(disk.used_bytes) if disk.used_bytes is not None else "all"
    limit = f" of {format_size(disk.limit_bytes)}" if disk.limit_bytes is not None else ""
    paths = [f"{format_size(each.size_bytes):>7}  {_printable(each.path)}" for each in disk.biggest[:biggest]]
    return [f"disk: {used}{limit} used" + ("; the biggest:" if paths else ""), *(f"disk: {path}" for path in paths)]


def _refused_lines(network: NetworkFacts, named: int) -> list[str]:
    """ "3 connections to 169.254.169.254 refused by policy"; what is not named is counted in a line of its own."""
    shown = network.refused[:named]
    others = network.refused_connections - sum(each.connections for each in shown)
    lines = [f"{_connections(each.connections)} to {each.address}" for each in shown]
    lines += [f"{_connections(others)} to {'others' if shown else 'private addresses'}"] if others > 0 else []
    return [f"network: {line} refused by policy" for line in lines]


def _connections(count: int) -> str:
    return f"{count} connection" if count == 1 else f"{count} connections"


def _stalls(result: Result) -> list[str]:
    stalls = [f"{name} {format_duration(seconds)}" for name, seconds in _stalled(result.pressure) if seconds >= 0.1]
    return [f"stalled: {', '.join(stalls)}"] if stalls else []


def _stalled(pressure: Pressure | None) -> list[tuple[str, float]]:
    if pressure is None:
        return []
    named = (("cpu", pressure.cpu_seconds), ("memory", pressure.memory_seconds), ("io", pressure.io_seconds))
    return [(name, seconds) for name, seconds in named if seconds is not None]


def _memory_course(result: Result) -> list[str]:
    """The last minute of memory, in ten readings at most."""
    if result.oom is None or not result.oom.events or not result.samples:
        return []
    end = result.samples[-1].seconds
    last = [sample for sample in result.samples if sample.seconds >= end - 60]
    step = -(-len(last) // 10)
    shown = reversed(last[::-1][::step])
    course = ", ".join(f"{format_size(each.memory_bytes)} at {format_duration(each.seconds)}" for each in shown)
    return [f"memory: the last minute: {course}"]


def _usage(result: Result) -> list[str]:
    usage = result.usage
    cpu = [each for each in (usage.cpu_user_seconds, usage.cpu_system_seconds) if each is not None]
    facts = [f"cpu {format_duration(sum(cpu))}"] if cpu else []
    facts += [f"throttled {format_duration(usage.cpu_throttled_seconds)}"] if usage.cpu_throttled_seconds else []
    sizes = (
        ("memory peak", usage.memory_peak_bytes),
        ("read", usage.io_read_bytes),
        ("written", usage.io_written_bytes),
        ("disk", usage.disk_used_bytes),
    )
    facts += [f"{name} {format_size(size)}" for name, size in sizes if size is not None]
    facts += [f"processes at once {usage.pids_peak}"] if usage.pids_peak is not None else []
    return [f"used: {', '.join(facts)}"] if facts else []


def _network(result: Result) -> list[str]:
    network = result.network
    if network is None:
        return []
    addresses = f", {', '.join(network.addresses)}" if network.addresses else ""
    return [f"network: {network.mode}{addresses}" + (f": {network.why}" if network.why else "")]


def _phases(result: Result) -> list[str]:
    times = result.timings
    phases = (
        ("queue", times.queue_seconds),
        ("start", times.start_seconds),
        ("run", times.run_seconds),
        ("collect", times.collect_seconds),
    )
    facts = [f"{name} {format_duration(seconds)}" for name, seconds in phases if seconds is not None]
    place = f" on {result.host}" if result.host else ""
    return [f"time: {', '.join(facts)}{place}"] if facts else []


def _attempts(result: Result) -> list[str]:
    if len(result.attempts) < 2:
        return []
    return [
        f"attempt {each.number}: {each.outcome or 'requeued'}"
        + (f" on {each.host}" if each.host else "")
        + (f": {each.why}" if each.why else "")
        for each in result.attempts
    ]


def _printable(path: str) -> str:
    """A job chooses its file names: no escape sequence of one may reach a terminal."""
    return path if path.isprintable() else ascii(path)[1:-1]
