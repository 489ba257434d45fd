"""What time does to jobs: leases that ran out, clients that left, deadlines in the queue, delays that are over.

Every agent runs one; several at once do no harm, since each step is fenced or conditional. Only this reaper acts on a
lease: RQ's registries hold our executions at +inf, so that RQ's own clean-up, which even a reader such as `rq info`
runs, never touches one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from dayfly.jobs.errors import JobNotFound, QueueError, SpecError
from dayfly.jobs.result import CLIENT_LOST, Attempt, Result, Timings
from dayfly.jobs.spec import DEFAULT_RETRY, Retry
from dayfly.jobs.state import Outcome, State
from dayfly.jobs.verdict import should_retry
from dayfly.queue import keys, scripts, transitions
from dayfly.queue.boundary import contained, log_fault
from dayfly.queue.commands import Argument, as_text, ask, ask_each
from dayfly.queue.consumer import held_claims
from dayfly.queue.deadlines import time_out
from dayfly.queue.producer import cancel
from dayfly.queue.upkeep import classes_of, keep_up

if TYPE_CHECKING:
    from redis import Redis

    from dayfly.queue.claims import Claim

UPKEEP_SECONDS = 30.0


class Reaper:
    """Call tick() about once a second. `lease_seconds` is that of the workers' claims, `retry` that of jobs which state
    none."""

    def __init__(self, redis: Redis, queues: Sequence[str], lease_seconds: float, retry: Retry = DEFAULT_RETRY) -> None:
        self._retry = retry
        self._redis = redis
        self._queues = tuple(queues)
        self._lease_seconds = lease_seconds
        self._upkeep_at = 0.0

    def tick(self) -> None:
        """Do what is due. Raises a QueueError."""
        names = classes_of(self._redis, self._queues)
        expired, clients, deadlines = self._overdue()
        for claim in self._still_held(expired, names):
            self._deal_with(keys.LEASES, claim.member, partial(self._reap, claim))
        for job_id in clients:
            self._deal_with(keys.CLIENTS, job_id, partial(self._cancel_abandoned, job_id))
        for job_id in deadlines:
            self._deal_with(keys.DEADLINES, job_id, partial(time_out, self._redis, job_id))
        scripts.PROMOTE(self._redis, *names, *self._queues)
        if time.monotonic() >= self._upkeep_at:
            self._upkeep_at = time.monotonic() + UPKEEP_SECONDS
            with contained("put the queues in order"):
                keep_up(self._redis, names, self._queues)

    def _deal_with(self, registry: str, member: str, deal: Callable[[], None]) -> None:
        """An entry that cannot be dealt with is dropped, or it would come up again each second."""
        try:
            deal()
        except QueueError:
            raise
        except Exception as error:  # noqa: BLE001 - logged; the other entries are dealt with
            log_fault("deal with an entry, which is dropped", error, registry=registry, entry=member)
            ask(self._redis, "ZREM", registry, member)

    def _overdue(self) -> tuple[list[bytes], list[str], list[str]]:
        run_id = str(ask(self._redis, "INFO", "server")["run_id"])
        found = scripts.OVERDUE(self._redis, self._lease_seconds, run_id)
        expired, clients, deadlines = found
        return expired, as_text(clients), as_text(deadlines)

    def _still_held(self, members: list[bytes], names: Sequence[str]) -> list[Claim]:
        claims = held_claims(self._redis, as_text(members))
        held = {claim.member for claim in claims}
        # Their jobs were deleted by hand, or somebody else has written them.
        gone = [member for member in members if member.decode(errors="replace") not in held]
        if gone:
            registries = [keys.LEASES, *(f"{keys.RQ}:wip:{name}" for name in names)]
            commands: list[tuple[Argument, ...]] = [("ZREM", registry, *gone) for registry in registries]
            executions = [f"{keys.RQ}:execution:".encode() + member for member in gone]
            ask_each(self._redis, [*commands, ("DEL", *executions)])
        return claims

    def _reap(self, claim: Claim) -> None:
        """The worker has not been heard of for a whole lease: the attempt is lost."""
        why = f"worker {claim.worker_name} was not heard of for {self._lease_seconds:g} s"
        attempt = Attempt(
            number=claim.attempt,
            worker=claim.worker_name,
            started_at=claim.claimed_at,
            ended_at=time.time(),
            outcome=Outcome.LOST,
            why=why,
        )
        is_cancelled = ask(self._redis, "HEXISTS", keys.job(claim.job_id), "dayfly_cancel")
        # A cancelled job goes the same way: requeue() ends it as cancelled.
        if is_cancelled or should_retry(_policy(claim, self._retry), Outcome.LOST, None, claim.attempt):
            is_ours = transitions.requeue(self._redis, claim, count_attempt=True, attempt=attempt)
        else:
            is_ours = transitions.finish(self._redis, claim, _lost(claim, attempt))
        if not is_ours:
            # Ended by RQ's own code (Job.cancel, Job.delete), which knows nothing of leases.
            ask(self._redis, "ZREM", keys.LEASES, claim.member)

    def _cancel_abandoned(self, job_id: str) -> None:
        message = "nothing was heard of it for 30 s"
        try:
            cancel(self._redis, job_id, message=message, reason=CLIENT_LOST)
        except JobNotFound:
            pass  # deleted by hand: only its lease was left
        finally:
            ask(self._redis, "ZREM", keys.CLIENTS, job_id)


def _policy(claim: Claim, default: Retry) -> Retry:
    from dayfly.jobs.door import read_job

    try:
        return read_job(claim.document).retry or default
    except SpecError:
        return default


def _lost(claim: Claim, attempt: Attempt) -> Result:
    return Result(
        id=claim.job_id,
        name=claim.document.get("name"),
        state=State.FINISHED,
        outcome=Outcome.LOST,
        message=attempt.why,
        queue=claim.queue,
        worker=claim.worker_name,
        timings=Timings(queued_at=claim.enqueued_at, claimed_at=claim.claimed_at, finished_at=attempt.ended_at),
        attempts=(*claim.earlier, attempt),
    )
