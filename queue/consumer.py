"""A worker's side of the queue: its record, the claims it makes, keeps and gives back.

One Consumer per worker and thread. `claim` and `turn` are the hot path: one script, one round trip each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from dayfly.jobs.demand import Capacity, Demand, class_name
from dayfly.queue import fields as job_fields
from dayfly.queue import keys, scripts, serving, transitions
from dayfly.queue.claims import NOTHING, Claim
from dayfly.queue.commands import as_text, ask
from dayfly.queue.fields import number, read_attempts
from dayfly.queue.payload import read_or_refuse
from dayfly.queue.worker_record import WorkerRecord

if TYPE_CHECKING:
    from redis import Redis

    from dayfly.jobs.result import Attempt, Result
    from dayfly.jobs.state import State

LEASE_SECONDS = 30.0
# No patience: so a large job starts within one job's length of being the oldest; whatever slips past makes that longer.
PATIENCE_SECONDS = 0.0
RESERVATION_SECONDS = 600.0
_CANCEL_REASON = b"dayfly_cancel_reason"
_OF_EXECUTIONS = (b"created_at", b"worker_name")


class Hold(StrEnum):
    """How a claim stands, as renew() found it."""

    HELD = "held"
    CANCEL = "cancel"  # its cancel was asked for
    KILL = "kill"  # likewise, without a grace period
    LOST = "lost"  # another execution has the job, or nobody: stop it, and report nothing


class Consumer:
    """`offer` is what the worker has when empty, `share` what a job takes that does not state its demands.

    Queues are served in the order given. `patience_seconds`: how long the oldest job may be refused for want of room
    before a worker is kept free for it (0: at once).
    """

    def __init__(
        self,
        redis: Redis,
        worker_name: str,
        queues: Sequence[str],
        host_id: str,
        labels: Mapping[str, str],
        *,
        offer: Capacity,
        share: Capacity,
        lease_seconds: float = LEASE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        reservation_seconds: float = RESERVATION_SECONDS,
    ) -> None:
        self._redis = redis
        self.worker_name = worker_name
        self.queues = tuple(queues)
        self.lease_seconds = lease_seconds
        self._offer, self._labels = offer, dict(labels)
        self.record = WorkerRecord(redis, worker_name, self.queues)
        self._described = {
            "name": worker_name,
            "host": _written(Demand(host=host_id)).removeprefix("h"),
            "queues": self.queues,
            "offer": _amounts(offer),
            "share": _amounts(share),
            "lease": lease_seconds,
            "patience": patience_seconds,
            "reservation": reservation_seconds,
        }
        self._without: str | None = None
        self._description = ""
        self.ask_without(None)

    def register(self, slots: int = 1) -> None:
        """Appear among RQ's workers, with what this one offers. Raises a QueueError."""
        self.record.register({"slots": str(slots), **serving.about(self._offer, self._labels)})

    def heartbeat(self) -> None:
        """Stay among RQ's workers: once a minute will do. Raises a QueueError."""
        self.record.heartbeat()

    def unregister(self) -> None:
        """Leave RQ's workers. What is still held stays held until its lease ends. Raises a QueueError."""
        self.record.unregister()

    def ask_without(self, label: str | None) -> bool:
        """From now on claim no job that asks for this label, though the worker has it; None: whatever it has.

        False when that was so already.
        """
        if label == self._without and self._description:
            return False
        self._without = label
        labels = {
            _written(Demand(labels=(pair,))).removeprefix("l"): True
            for pair in self._labels.items()
            if pair[0] != label
        }
        self._description = json.dumps({**self._described, "labels": labels})
        return True

    def claim(self, free: Capacity | None) -> Claim | None:
        """Take the oldest job that fits into `free`; None when there is none, or no slot (`free` None).

        Raises a QueueError. When the answer was lost the job may be ours all the same: executions() tells.
        """
        if free is None:
            return None
        execution_id = token_hex(16)
        return self._read(scripts.CLAIM(self._redis, *self._claim_arguments(execution_id, free)), execution_id)

    def finish(self, claim: Claim, result: Result) -> bool:
        """End the job with `result`. False when it is not ours any more: clean up, report nothing."""
        return transitions.finish(self._redis, claim, result)

    def turn(self, claim: Claim, result: Result, free: Capacity) -> tuple[bool, Claim | None]:
        """finish() and claim() in one round trip; `free` includes what the finished job held."""
        execution_id = token_hex(16)
        ending = transitions.finish_arguments(claim, result)
        left, found = scripts.TURN(self._redis, *ending, *self._claim_arguments(execution_id, free))
        transitions.settle(self._redis, claim, left)
        return left >= 0, self._read(found, execution_id)

    def requeue(
        self, claim: Claim, *, count_attempt: bool, attempt: Attempt | None = None, pause_seconds: float = 0.0
    ) -> bool:
        """Put the job back into its queue. False when it is not ours any more."""
        return transitions.requeue(
            self._redis, claim, count_attempt=count_attempt, attempt=attempt, pause_seconds=pause_seconds
        )

    def mark(self, claim: Claim, state: State, images: Mapping[str, str] = NOTHING) -> bool:
        """Say that the job is running or collecting, on which images. False when it is not ours any more."""
        return transitions.mark(self._redis, claim, state, images)

    def renew(self, claims: Iterable[Claim]) -> dict[str, Hold]:
        """Move the leases of all on, in one round trip: how each stands, by job id. Raises a QueueError."""
        held = list(claims)
        if not held:
            return {}
        rows = [(each.job_id, each.class_name, each.execution_id, each.fence) for each in held]
        words = scripts.RENEW(
            self._redis, self.worker_name, self.lease_seconds, *(value for row in rows for value in row)
        )
        return {each.job_id: Hold(word.decode()) for each, word in zip(held, words, strict=True)}

    def discarded(self, jobs: Iterable[tuple[Claim, float]]) -> None:
        """Note when the last of finished jobs was gone from this host (Unix seconds), all in one round trip."""
        scripts.DISCARDED.each(self._redis, [(claim.job_id, claim.fence, f"{at:.6f}") for claim, at in jobs])

    def cancel_reason(self, claim: Claim) -> str | None:
        """The word for why the job's cancel was asked for (CLIENT_LOST); None when somebody just did."""
        (found,) = job_fields.bounded(self._redis, (_CANCEL_REASON,), [keys.job(claim.job_id)])
        return job_fields.text(found, _CANCEL_REASON)

    def executions(self) -> list[Claim]:
        """What Redis says this worker holds: for its start, and after a lost answer. Raises a QueueError."""
        members = as_text(ask(self._redis, "ZRANGE", keys.LEASES, 0, -1))
        return [claim for claim in held_claims(self._redis, members) if claim.worker_name == self.worker_name]

    def _claim_arguments(self, execution_id: str, free: Capacity) -> tuple[str | int, ...]:
        return self._description, execution_id, free.cpus_milli, free.memory_mib, free.disk_mib

    def _read(self, found: list[Any] | None, execution_id: str) -> Claim | None:
        if not found:
            return None
        job_id, name, attempt, fence, payload, queued_at, claimed_at, client, attempts, signature, images = found
        document, refusal = read_or_refuse(payload)
        return Claim(
            job_id=job_id.decode(),
            queue=name.decode().partition("@")[0],
            class_name=name.decode(),
            worker_name=self.worker_name,
            execution_id=execution_id,
            attempt=attempt,
            fence=fence.decode(),
            document=document,
            enqueued_at=number(queued_at) or float(claimed_at),
            claimed_at=float(claimed_at),
            client_lease=bool(client),
            earlier=read_attempts(attempts),
            refusal=refusal,
            signature=signature.decode(errors="replace") or None,
            images=job_fields.read_images(images),
        )


def held_claims(redis: Redis, members: Sequence[str]) -> list[Claim]:
    """The claims behind executions ("job:execution"); those whose job or execution is gone are left out.

    So are those that no claim.lua has written, since anybody may have.
    """
    pairs = [member.rsplit(":", 1) for member in members if ":" in member]
    executions = job_fields.bounded(redis, _OF_EXECUTIONS, [keys.execution(*pair) for pair in pairs])
    jobs = job_fields.fetch_bounded(redis, [job_id for job_id, _ in pairs])
    found = (
        _held_claim(job_id, execution_id, job, execution)
        for (job_id, execution_id), job, execution in zip(pairs, jobs, executions, strict=True)
    )
    return [claim for claim in found if claim is not None]


def _held_claim(job_id: str, execution_id: str, job: job_fields.Fields, execution: job_fields.Fields) -> Claim | None:
    claimed_at = job_fields.seconds(execution, b"created_at")
    class_name, worker_name = job_fields.text(job, b"origin"), job_fields.text(execution, b"worker_name")
    if claimed_at is None or class_name is None or worker_name is None:
        return None
    document, refusal = job_fields.document_of(job)
    return Claim(
        job_id=job_id,
        queue=job_fields.queue_of(job),
        class_name=class_name,
        worker_name=worker_name,
        execution_id=execution_id,
        attempt=job_fields.whole(job, b"dayfly_attempt", 1),
        fence=job_fields.text(job, b"dayfly_fence") or "",
        document=document,
        enqueued_at=job_fields.seconds(job, b"dayfly_queued_at") or claimed_at,
        claimed_at=claimed_at,
        client_lease=b"dayfly_client" in job,
        earlier=read_attempts(job.get(b"dayfly_attempts")),
        refusal=refusal,
        signature=job_fields.text(job, b"dayfly_signature"),
    )


def _written(demand: Demand) -> str:
    """A host or label as it is written in the names of classes."""
    return class_name("q", demand).removeprefix("q@-:-:-:")


def _amounts(capacity: Capacity) -> tuple[int, int, int]:
    return capacity.cpus_milli, capacity.memory_mib, capacity.disk_mib
