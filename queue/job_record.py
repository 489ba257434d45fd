"""What Redis knows of one job, read once: a frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dayfly.jobs.errors import SpecError
from dayfly.jobs.result import Attempt, ImageUsed, Result, Timings
from dayfly.jobs.state import Outcome, State
from dayfly.queue import fields as job_fields
from dayfly.queue import outcomes

if TYPE_CHECKING:
    from dayfly.jobs.spec import JobSpec

# RQ's status decides, since RQ's own commands (requeue, cancel) change only that; ours refines "started".
_STATES = {
    "deferred": State.WAITING,
    "ready_to_enqueue": State.WAITING,
    "rate_limited": State.WAITING,
    "created": State.WAITING,
    "scheduled": State.DELAYED,
    "queued": State.QUEUED,
}
_OUTCOMES = {"finished": Outcome.SUCCEEDED, "canceled": Outcome.CANCELLED, "stopped": Outcome.CANCELLED}


@dataclass(frozen=True)
class JobRecord:
    """One job. Times are Unix seconds; `result` is always there, and whole once the job is finished.

    `unreadable` says why `document` is empty.
    """

    id: str
    queue: str
    state: State
    outcome: Outcome | None
    result: Result
    document: Mapping[str, Any]
    unreadable: str | None
    submitted_at: float | None
    queued_at: float | None
    claimed_at: float | None
    ended_at: float | None
    worker: str | None
    attempt: int
    is_cancel_asked: bool
    retry_of: str | None
    parked: bool
    signature: str | None = None

    @property
    def name(self) -> str | None:
        return self.document.get("name")

    @property
    def spec(self) -> JobSpec:
        """The job as it was submitted. Raises SpecError when it is a parked one of a plain RQ producer."""
        from dayfly.jobs.door import read_job

        if self.unreadable is not None:
            raise SpecError("", f"of job {self.id} cannot be read: {self.unreadable}")
        return read_job(self.document)


def read_record(job_id: str, fields: job_fields.Fields) -> JobRecord:
    state = _state(fields)
    document, unreadable = job_fields.document_of(fields)
    result = _result(job_id, fields, state, document)
    return JobRecord(
        id=job_id,
        queue=job_fields.queue_of(fields),
        state=state,
        outcome=result.outcome,
        result=result,
        document=document,
        unreadable=unreadable,
        submitted_at=job_fields.seconds(fields, b"dayfly_submitted_at") or job_fields.rq_time(fields, b"created_at"),
        queued_at=job_fields.seconds(fields, b"dayfly_queued_at"),
        claimed_at=job_fields.rq_time(fields, b"started_at"),
        ended_at=job_fields.rq_time(fields, b"ended_at") if state is State.FINISHED else None,
        worker=job_fields.text(fields, b"worker_name"),
        attempt=job_fields.whole(fields, b"dayfly_attempt", 0),
        is_cancel_asked=b"dayfly_cancel" in fields,
        retry_of=job_fields.text(fields, b"dayfly_retry_of"),
        parked=b"dayfly_queue" not in fields,
        signature=job_fields.text(fields, b"dayfly_signature"),
    )


def _state(fields: job_fields.Fields) -> State:
    status = job_fields.text(fields, b"status") or "created"
    if status == "started":
        ours = job_fields.text(fields, b"dayfly_state")
        return State(ours) if ours in (State.RUNNING, State.COLLECTING) else State.STARTING
    return _STATES.get(status, State.FINISHED)


def _result(job_id: str, fields: job_fields.Fields, state: State, document: Mapping[str, Any]) -> Result:
    packed = fields.get(b"dayfly_result")
    if state is State.FINISHED and packed:
        return _discarded(outcomes.unpack(packed), job_fields.seconds(fields, b"dayfly_discarded_at"))
    status = job_fields.text(fields, b"status") or ""
    return Result(
        id=job_id,
        name=document.get("name"),
        state=state,
        # Without a result of ours RQ's own code ended it: Job.cancel, a plain RQ worker that took it.
        outcome=_OUTCOMES.get(status, Outcome.FAILED) if state is State.FINISHED else None,
        message="ended by RQ's own code, not by a Dayfly worker" if state is State.FINISHED else None,
        queue=job_fields.queue_of(fields),
        worker=job_fields.text(fields, b"worker_name"),
        image=ImageUsed(document["image"]) if isinstance(document.get("image"), str) else None,
        timings=_timings(fields),
        attempts=_attempts(fields, state),
    )


def _discarded(result: Result, at: float | None) -> Result:
    """The job's last trace goes from its host after its result was written."""
    return result if at is None else replace(result, timings=replace(result.timings, discarded_at=at))


def _timings(fields: job_fields.Fields) -> Timings:
    return Timings(
        queued_at=job_fields.seconds(fields, b"dayfly_queued_at"),
        claimed_at=job_fields.rq_time(fields, b"started_at"),
    )


def _attempts(fields: job_fields.Fields, state: State) -> tuple[Attempt, ...]:
    earlier = job_fields.read_attempts(fields.get(b"dayfly_attempts"))
    if state not in (State.STARTING, State.RUNNING, State.COLLECTING):
        return earlier
    return (
        *earlier,
        Attempt(
            number=job_fields.whole(fields, b"dayfly_attempt", 1),
            worker=job_fields.text(fields, b"worker_name"),
            started_at=job_fields.rq_time(fields, b"started_at"),
        ),
    )
