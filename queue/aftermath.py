"""What the end of a job sets going: jobs that waited for it, and the ends of those that now never can run.

Ours are released by a script of ours. What plain RQ producers tied to a job of ours (dependents, repeats, rate
limits) is RQ's, and RQ's own methods are called for it. A process that dies in between leaves nothing stuck: the
reaper settles what still waits for a finished job.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dayfly.jobs.result import Result, Timings
from dayfly.jobs.state import Outcome, State
from dayfly.queue import fields as job_fields
from dayfly.queue import keys, outcomes, scripts
from dayfly.queue.connection import translated

if TYPE_CHECKING:
    from redis import Redis


def conclude(
    redis: Redis, job_id: str, outcome: Outcome, message: str, *, reason: str | None = None, condition: str = ""
) -> bool:
    """End a job that no worker holds. False when one does, when it is over, or when it is not in RQ's status
    `condition` ("" for any). Raises a QueueError."""
    result = _unstarted(redis, job_id, outcome, message, reason)
    name, value = outcomes.rq_result(result)
    status = outcomes.rq_status(outcome)
    left = scripts.CONCLUDE(redis, job_id, status, outcome, outcomes.pack(result), name, value, condition)
    if left > 0:
        settle(redis, job_id)
    return bool(left >= 0)


def settle(redis: Redis, job_id: str) -> None:
    """A job is over: release what waited for it, and end what now never can run. Raises a QueueError."""
    foreign, *doomed = scripts.SETTLE(redis, job_id)
    for waiting, parent in zip(doomed[::2], doomed[1::2], strict=True):
        doom(redis, waiting.decode(), parent.decode())
    _settle_as_rq(redis, job_id, has_dependents=foreign > 0)


def doom(redis: Redis, job_id: str, parent: str) -> None:
    """End a job that waits for `parent`, which did not succeed: cancelled, as nothing of it was at fault."""
    message = f"job {parent}, which it was to run after, did not succeed"
    conclude(redis, job_id, Outcome.CANCELLED, message, reason="dependency_failed", condition="deferred")


def _unstarted(redis: Redis, job_id: str, outcome: Outcome, message: str, reason: str | None) -> Result:
    fields = job_fields.fetch_bounded(redis, [job_id])[0]
    return Result(
        id=job_id,
        name=job_fields.document_of(fields)[0].get("name"),
        state=State.FINISHED,
        outcome=outcome,
        reason=reason,
        message=message,
        queue=job_fields.queue_of(fields),
        timings=Timings(queued_at=job_fields.seconds(fields, b"dayfly_queued_at"), finished_at=time.time()),
        attempts=job_fields.read_attempts(fields.get(b"dayfly_attempts")),
    )


def _settle_as_rq(redis: Redis, job_id: str, *, has_dependents: bool) -> None:
    with translated(redis):
        repeats, limit = redis.hmget(keys.job(job_id), "repeats_left", "rate_limit_key")
        if not (has_dependents or repeats or limit):
            return
        from rq.exceptions import NoSuchJobError

        try:
            name = _settle_by_rqs_classes(redis, job_id, has_dependents=has_dependents, is_limited=bool(limit))
        except NoSuchJobError:
            return  # deleted meanwhile, or nothing that RQ's producers write
    if "@" in name:
        scripts.RECONCILE(redis, name)  # RQ has pushed to its list and does not know the index


def _settle_by_rqs_classes(redis: Redis, job_id: str, *, has_dependents: bool, is_limited: bool) -> str:
    """The name of the list that RQ may have pushed to. Raises NoSuchJobError."""
    from rq import Queue
    from rq.rate_limit import release_slot
    from rq.repeat import Repeat
    from rq.serializers import JSONSerializer

    from dayfly.queue.bounded_job import BoundedJob

    job = BoundedJob.fetch(job_id, connection=redis, serializer=JSONSerializer)
    queue = Queue(job.origin, connection=redis, serializer=JSONSerializer, job_class=BoundedJob)
    if has_dependents:
        queue.enqueue_dependents(job)
    if job.repeats_left and job.is_finished:
        Repeat.schedule(job, queue)
    if is_limited:
        release_slot(job)
    return str(job.origin)
