"""The steps of a job that a worker holds: each one atomic script, refused when the claim's execution has lost the job.

queued ── claim ──> starting ── mark ──> running ──> collecting ── finish ──> finished
   ^                                                     |
   └────────────────────── requeue ──────────────────────┘
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dayfly.jobs.result import Attempt, Result
from dayfly.jobs.state import Outcome, State
from dayfly.queue import aftermath, outcomes, scripts
from dayfly.queue.fields import write_attempt

if TYPE_CHECKING:
    from redis import Redis

    from dayfly.queue.claims import Claim
    from dayfly.queue.commands import Argument

_FLAGGED = 2


def finish(redis: Redis, claim: Claim, result: Result) -> bool:
    """End the job with `result`. False when another execution has it by now. Raises a QueueError."""
    left = scripts.FINISH(redis, *finish_arguments(claim, result))
    settle(redis, claim, left)
    return bool(left >= 0)


def finish_arguments(claim: Claim, result: Result) -> tuple[Argument, ...]:
    """The arguments of finish(), for a script that does more at the same time."""
    if result.outcome is None:
        raise ValueError(f"job {claim.job_id} cannot finish without an outcome")
    started, ended = result.timings.started_at, result.timings.finished_at
    worked = max(ended - started, 0.0) if started and ended else 0.0
    status = outcomes.rq_status(result.outcome)
    name, value = outcomes.rq_result(result)
    return (*_held(claim), status, result.outcome.value, outcomes.pack(result), f"{worked:.6f}", name, value)


def settle(redis: Redis, claim: Claim, left: int) -> None:
    """Do what a finish has left to do: dependents, repeats, rate limits."""
    if left > 0:
        aftermath.settle(redis, claim.job_id)


def requeue(
    redis: Redis, claim: Claim, *, count_attempt: bool, attempt: Attempt | None = None, pause_seconds: float = 0.0
) -> bool:
    """Put the job back to the front of its class; a job whose cancel was asked for ends as cancelled instead.

    `count_attempt`: whether this was one of the attempts that the job may have. `attempt` is kept as its story.
    False when another execution has the job by now. Raises a QueueError.
    """
    story = write_attempt(attempt) if attempt is not None else ""
    answer = scripts.REQUEUE(redis, *_held(claim), int(count_attempt), story, pause_seconds)
    if answer == _FLAGGED:
        return finish(redis, claim, _cancelled(claim, attempt))
    return bool(answer)


def mark(redis: Redis, claim: Claim, state: State, images: Mapping[str, str]) -> bool:
    """Say that the job is RUNNING or COLLECTING. False when another execution has it. Raises a QueueError.

    `images`: the digests of those that it runs on, by what it calls them; the first attempt's stay.
    """
    pins = json.dumps(dict(images)) if images else ""
    arguments = (claim.job_id, claim.class_name, claim.execution_id, claim.fence, state.value, pins)
    return bool(scripts.MARK(redis, *arguments))


def _held(claim: Claim) -> tuple[str, str, str, str, str]:
    return claim.worker_name, claim.job_id, claim.class_name, claim.execution_id, claim.fence


def _cancelled(claim: Claim, attempt: Attempt | None) -> Result:
    from dayfly.jobs.result import Timings

    result = Result(
        id=claim.job_id,
        name=claim.document.get("name"),
        state=State.FINISHED,
        outcome=Outcome.CANCELLED,
        message="cancelled while it was put back into the queue",
        queue=claim.queue,
        worker=claim.worker_name,
        timings=Timings(queued_at=claim.enqueued_at, claimed_at=claim.claimed_at),
        attempts=claim.earlier,
    )
    return result if attempt is None else replace(result, attempts=(*claim.earlier, attempt), host=attempt.host)
