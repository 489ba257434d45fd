"""Between a claim (the queue's word for a job that is ours) and the record of it that outlives this agent."""

from dayfly.jobs.plain import from_plain, to_plain
from dayfly.jobs.result import Attempt, Result
from dayfly.queue.claims import Claim
from dayfly.worker.host import host_id
from dayfly.worker.record import Record


def claim_of(record: Record) -> Claim:
    """The claim that an earlier agent had."""
    return Claim(
        job_id=record.job_id,
        queue=record.queue,
        class_name=record.class_name,
        worker_name=record.worker_name,
        execution_id=record.execution_id,
        attempt=record.attempt,
        fence=record.fence,
        document=record.document,
        enqueued_at=record.enqueued_at,
        claimed_at=record.claimed_at,
        client_lease=record.client_lease,
        earlier=tuple(from_plain(Attempt, each) for each in record.earlier),
    )


def earlier_of(claim: Claim) -> tuple[dict[str, object], ...]:
    return tuple(to_plain(each) for each in claim.earlier)


def attempt_of(claim: Claim, result: Result, why: str | None = None) -> Attempt:
    """The story of this attempt, for the history of the job."""
    return Attempt(
        number=claim.attempt,
        host=host_id(),
        worker=claim.worker_name,
        started_at=result.timings.started_at,
        ended_at=result.timings.finished_at,
        outcome=result.outcome,
        exit_code=result.exit_code,
        signal=result.signal,
        why=why or result.message,
    )
