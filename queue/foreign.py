"""Jobs from plain RQ producers: `Queue("ci", serializer=JSONSerializer).enqueue("dayfly.execute", document)`.

They arrive in the queue's plain list. Each is looked at without being run or inflated beyond bounds, checked by the
same door as any document, and moved to the list of its demand class. What is none of ours is parked with the reason,
in RQ's registry of failed jobs, where `rq info` and rq-dashboard show it. Nothing is imported, no callback is called.
Where signatures are wanted the producer's lies in the job's `meta`, and is checked first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from dayfly.jobs.demand import Demand, class_name, stated_need
from dayfly.jobs.errors import QueueError, SpecError
from dayfly.jobs.result import FOREIGN
from dayfly.jobs.signatures import FIELD, SignatureError
from dayfly.jobs.state import Outcome
from dayfly.queue import aftermath, keys, scripts
from dayfly.queue.boundary import contained, log_fault
from dayfly.queue.commands import ask, ask_each
from dayfly.queue.payload import MAX_PAYLOAD_BYTES, PayloadError, read_document

if TYPE_CHECKING:
    from redis import Redis

    from dayfly.jobs.signatures import TrustedKeys
    from dayfly.jobs.spec import JobSpec

_AT_ONCE = 50
_ID = re.compile(rb"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
_LARGEST_META_BYTES = 1 << 16
_QUEUED = b"queued"
_CALLED = ("success_callback_name", "failure_callback_name", "stopped_callback_name", "webhooks")


class Intake:
    """What plain RQ producers put into the queues of one Redis."""

    def __init__(self, redis: Redis, trusted: TrustedKeys | None = None) -> None:
        """`trusted`: whose signatures are believed; None: unsigned jobs are taken."""
        self._redis = redis
        self._trusted = trusted

    def take(self, queue: str) -> int:
        """Move or park some of what lies in the plain list of `queue`: how many. Call again until it is 0.

        Raises a QueueError.
        """
        ids = ask(self._redis, "LRANGE", keys.jobs_list(queue), 0, _AT_ONCE - 1)
        for job_id in ids:
            if not _ID.fullmatch(job_id):
                self._drop(queue, job_id)
                continue
            try:
                self._take_one(queue, job_id.decode())
            except QueueError:
                raise
            except Exception as error:  # noqa: BLE001 - logged; one job of the list must not hold up the others
                reason = log_fault("read the job", error, job=job_id.decode())
                with contained("park the job", job=job_id.decode()):
                    self._park(queue, job_id.decode(), reason)
                ask(self._redis, "LREM", keys.jobs_list(queue), 1, job_id)
        return len(ids)

    def _drop(self, queue: str, job_id: bytes) -> None:
        """RQ makes no such id, and workers name directories by it: park what can be, and have it out of the list."""
        with contextlib.suppress(UnicodeDecodeError):
            self._park(queue, job_id.decode(), "its id is none: 1 to 64 of A-Z a-z 0-9 _ . - and no dot in front")
        ask(self._redis, "LREM", keys.jobs_list(queue), 1, job_id)

    def _take_one(self, queue: str, job_id: str) -> None:
        key = keys.job(job_id)
        size, meta_size, status, *called = ask_each(
            self._redis,
            [("HSTRLEN", key, "data"), ("HSTRLEN", key, "meta"), ("HSTRLEN", key, "status")]
            + [("HSTRLEN", key, name) for name in _CALLED],
        )
        if status != len(_QUEUED) or ask(self._redis, "HGET", key, "status") != _QUEUED:
            # Expired, deleted, or on its way elsewhere: RQ's own workers drop such ids too.
            ask(self._redis, "LREM", keys.jobs_list(queue), 1, job_id)
            return
        payload = ask(self._redis, "HGET", key, "data") if size <= MAX_PAYLOAD_BYTES else None
        # Kept whether or not it is wanted here: another worker of the queue may want it.
        meta = ask(self._redis, "HGET", key, "meta") if 0 < meta_size <= _LARGEST_META_BYTES else None
        signature = _signature_in(meta)
        try:
            document = _read(payload, [name for name, length in zip(_CALLED, called, strict=True) if length])
            if self._trusted is not None:
                self._trusted.verify_job(signature, job_id, queue, document)
            self._adopt(queue, job_id, payload or b"", _spec(document), signature)
        except (PayloadError, SpecError, SignatureError) as error:
            self._park(queue, job_id, str(error))

    def _adopt(self, queue: str, job_id: str, payload: bytes, spec: JobSpec, signature: str | None) -> None:
        if spec.unique is not None:
            holder = scripts.RESERVE(self._redis, spec.unique, job_id).decode()
            if holder != job_id:
                raise PayloadError(f"job {holder} has the unique key {spec.unique!r} and is not finished")
        options = {
            "need": stated_need(spec),
            "delay": spec.delay_seconds,
            "queue_timeout": spec.queue_timeout_seconds,
            "unique": spec.unique,
            "signature": signature,
        }
        scripts.ADOPT(
            self._redis,
            queue,
            job_id,
            class_name(queue, Demand.of(spec)),
            hashlib.sha1(payload, usedforsecurity=False).hexdigest(),
            -1 if spec.timeout_seconds is None else ceil(spec.timeout_seconds),
            json.dumps({name: value for name, value in options.items() if value is not None}),
        )

    def _park(self, queue: str, job_id: str, reason: str) -> None:
        message = f"refused from queue {queue}: {reason}"
        is_parked = aftermath.conclude(
            self._redis, job_id, Outcome.REJECTED, message, reason=FOREIGN, condition="queued"
        )
        if is_parked:
            ask(self._redis, "HSET", keys.job(job_id), "dayfly_parked", message)
        ask(self._redis, "LREM", keys.jobs_list(queue), 1, job_id)


def _read(payload: bytes | None, called: Sequence[str]) -> Mapping[str, Any]:
    """The document in a payload. Raises PayloadError."""
    if payload is None:
        raise PayloadError(f"its payload is missing or larger than {MAX_PAYLOAD_BYTES >> 20} MiB")
    if called:
        raise PayloadError(f"it asks for {', '.join(called)}: callbacks and webhooks are never called here")
    return read_document(payload)


def _signature_in(meta: bytes | None) -> str | None:
    """What the producer has put into RQ's `meta`, which is JSON where its queue has the JSON serializer."""
    try:
        found = json.loads(meta or b"null")
    except (ValueError, RecursionError):
        return None
    signature = found.get(FIELD) if isinstance(found, dict) else None
    return signature if isinstance(signature, str) else None


def _spec(document: Mapping[str, Any]) -> JobSpec:
    """The job in a document. Raises PayloadError, SpecError."""
    from dayfly.jobs.door import read_job

    spec = read_job(document)
    if spec.after is not None:
        raise PayloadError("the document says `after`: with RQ's own classes that is enqueue(depends_on=…)")
    return spec
