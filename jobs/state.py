"""Where a job is, how it ended, and the exit code that `dayfly run` makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dayfly.jobs.result import Result


class State(StrEnum):
    """Where a job is. `outcome` is null until it is FINISHED."""

    WAITING = "waiting"  # for other jobs (`after`)
    DELAYED = "delayed"  # until its time has come (`delay`, a retry's pause)
    QUEUED = "queued"
    STARTING = "starting"  # a worker has it: image, container
    RUNNING = "running"
    COLLECTING = "collecting"  # its last process is dead, artifacts are read
    FINISHED = "finished"


class Outcome(StrEnum):
    """How a job ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SIGNALED = "signaled"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    DISK_FULL = "disk_full"
    CANCELLED = "cancelled"
    LOST = "lost"
    REJECTED = "rejected"


class Cause(StrEnum):
    """What ended the main process, or kept it from starting, as the keeper saw it (`cause` in exit.json)."""

    EXITED = "exited"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    REQUEUED = "requeued"
    LEASE_LOST = "lease_lost"
    SERVICE_NOT_READY = "service_not_ready"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class ExitRule:
    """One row of the exit code table. `fixed` is the code, or None: the job's own code, else 128 + its signal."""

    code: str
    fixed: int | None
    outcomes: tuple[Outcome, ...]
    meaning: str


EXIT_CODES: tuple[ExitRule, ...] = (
    ExitRule("0", 0, (Outcome.SUCCEEDED,), "the job succeeded"),
    ExitRule("1-255", None, (Outcome.FAILED,), "the job's own exit code, unchanged (its own 124, 125 or 137 too)"),
    ExitRule("1", None, (), "a service of the job was not ready, so that its command never ran"),
    ExitRule("1-255", None, (Outcome.DISK_FULL,), "the job ran out of its disk quota and failed: its own exit code"),
    ExitRule("128+n", None, (Outcome.SIGNALED,), "signal n ended the job"),
    ExitRule("124", 124, (Outcome.TIMED_OUT,), "the job ran, or waited in the queue, longer than it may"),
    ExitRule("125", 125, (Outcome.LOST, Outcome.REJECTED), "Dayfly failed, the host was lost, or the job was refused"),
    ExitRule("126", None, (), "the command was found and cannot be executed"),
    ExitRule("127", None, (), "the command was not found"),
    ExitRule("130", 130, (Outcome.CANCELLED,), "the job was cancelled"),
    ExitRule("137", 137, (Outcome.OUT_OF_MEMORY,), "the job ran out of its memory limit"),
)

_RULES = {outcome: rule for rule in EXIT_CODES for outcome in rule.outcomes}


def exit_code_of(result: Result) -> int:
    """The exit code of `dayfly run` and `dayfly wait` for a finished job, by EXIT_CODES."""
    if result.outcome is None:
        raise ValueError(f"job {result.id} is {result.state}: it has no exit code yet")
    rule = _RULES[result.outcome]
    if rule.fixed is not None:
        return rule.fixed
    if result.exit_code is not None:
        return result.exit_code
    if result.signal is not None:
        return 128 + result.signal
    return 1 if result.reason == Cause.SERVICE_NOT_READY.value else 125
