"""The end of jobs that no worker took within their queue_timeout.

The agents' reapers see to it, and where there is no agent the client that waits for the job: both end it here, and
only one of them can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dayfly.jobs.result import QUEUE_TIMEOUT
from dayfly.jobs.state import Outcome
from dayfly.queue import aftermath, keys
from dayfly.queue.commands import ask, ask_each

if TYPE_CHECKING:
    from redis import Redis


def expire(redis: Redis, job_ids: Sequence[str]) -> float | None:
    """End those of the jobs whose time in the queue is over; in how many seconds the next one's is, None for never.

    Never, as far as is known now: a job that waits for another, or comes back to the queue, may get one yet.
    Raises a QueueError.
    """
    (seconds, micros), *ends = ask_each(redis, [("TIME",), *(("ZSCORE", keys.DEADLINES, job_id) for job_id in job_ids)])
    now = int(seconds) + int(micros) / 1e6
    left = {job_id: float(end) - now for job_id, end in zip(job_ids, ends, strict=True) if end is not None}
    for job_id, seconds_left in left.items():
        if seconds_left <= 0:
            time_out(redis, job_id)
    return min((each for each in left.values() if each > 0), default=None)


def time_out(redis: Redis, job_id: str) -> None:
    """End one job whose time in the queue is over, unless a worker has it by now. Raises a QueueError."""
    message = "no worker took the job within its queue_timeout"
    is_over = aftermath.conclude(redis, job_id, Outcome.TIMED_OUT, message, reason=QUEUE_TIMEOUT, condition="queued")
    if not is_over:
        ask(redis, "ZREM", keys.DEADLINES, job_id)
