"""Putting jobs into the queue, through RQ's own classes, and asking for their end.

A submission is one transaction of RQ's writes and of enqueue.lua, which adds what is ours: both are there or neither.
Only RQ and redis are imported here; a JobSpec has been checked before.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from math import ceil
from typing import TYPE_CHECKING

from redis.exceptions import WatchError
from rq import Queue
from rq.job import Dependency, Job, JobStatus
from rq.serializers import JSONSerializer

from dayfly.jobs.demand import Demand, class_name, stated_need
from dayfly.jobs.errors import DuplicateJob, JobNotFound, QueueError
from dayfly.jobs.ids import new_id
from dayfly.jobs.result import FOREIGN, UNTRUSTED
from dayfly.jobs.signatures import SignatureError
from dayfly.jobs.spec import AfterWhen, JobSpec
from dayfly.jobs.state import Outcome, State
from dayfly.queue import aftermath, scripts
from dayfly.queue.connection import translated
from dayfly.queue.deadlines import expire
from dayfly.queue.payload import FUNCTION, Serializer
from dayfly.queue.records import Records

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline

    from dayfly.jobs.signatures import Signing
    from dayfly.queue.job_record import JobRecord

CLIENT_SECONDS = 30  # how long a job of `dayfly run` outlives its client
RETAIN_SECONDS = 7 * 86400
_CHUNK = 500
_DESCRIPTION_LETTERS = 120


class Producer:
    """Jobs into the queues of one Redis. Threads may share it."""

    def __init__(self, redis: Redis, signing: Callable[[], Signing | None] = lambda: None) -> None:
        """`signing` gives what every job is signed with; asked when there is something to sign."""
        self._redis = redis
        self._signing = signing

    def submit(self, spec: JobSpec, client_lease: bool = False) -> str:
        """Put one job into its queue; returns its id.

        `client_lease`: the job is cancelled when beat() has not been called for 30 seconds.
        Raises DuplicateJob while another job with the key `spec.unique` is not finished, JobNotFound for a job to run
        after that is not there, and QueueError.
        """
        return self._submit(spec, client_lease, retry_of=None)

    def submit_many(self, specs: Iterable[JobSpec]) -> list[str]:
        """submit() for each, in order, in pipelined round trips of 500. What came before a refused one stays."""
        ids: list[str] = []
        for chunk in _chunks(specs, _CHUNK):
            ids += self._submit_chunk(chunk)
        return ids

    def beat(self, job_id: str) -> bool:
        """The client of the job is there. False when the job has no client's lease (any more)."""
        return bool(scripts.BEAT(self._redis, job_id, CLIENT_SECONDS))

    def cancel(self, job_id: str, now: bool = False) -> bool:
        """Ask for a job's end, wherever it is; `now`: without its grace period. False when it is over already.

        A job that no worker has is over when this returns. Raises JobNotFound.
        """
        return cancel(self._redis, job_id, now=now, message="cancelled before any worker took it")

    def expire(self, job_ids: Sequence[str]) -> float | None:
        """End those of the jobs that waited longer than their queue_timeout; in how many seconds to ask again.

        For whoever waits for them where no worker is; None: none of them has such an end now.
        """
        return expire(self._redis, job_ids)

    def retry(self, job_id: str) -> str:
        """Submit a job's document again, at once and waiting for nothing; returns the new job's id.

        Raises QueueError while it is not over, and for what Dayfly refused to run; SpecError for what it cannot read.
        """
        from dataclasses import replace

        record = Records(self._redis).get(job_id)
        if record.state is not State.FINISHED:
            raise QueueError(f"cannot retry job {job_id}: it is {record.state}", "wait for its end, or cancel it first")
        if record.result.reason in (FOREIGN, UNTRUSTED):
            raise QueueError(f"cannot retry job {job_id}: it was {record.result.message}", "enqueue it anew, mended")
        self._check_signed(record)
        spec = replace(record.spec, after=None, delay_seconds=None)
        return self._submit(spec, client_lease=False, retry_of=job_id)

    def _submit(self, spec: JobSpec, client_lease: bool, retry_of: str | None) -> str:
        job_id = new_id()
        after = self._resolve(spec)
        if spec.unique is not None:
            holder = scripts.RESERVE(self._redis, spec.unique, job_id).decode()
            if holder != job_id:
                raise DuplicateJob(spec.unique, holder)
        options = self._options(spec, job_id, client_lease, retry_of)
        with translated(self._redis):
            parent = self._write(spec, job_id, after, options)
        if parent:
            aftermath.doom(self._redis, job_id, parent.decode())
        return job_id

    def _submit_chunk(self, specs: Sequence[JobSpec]) -> list[str]:
        """Those that need no look before in one transaction; the others one by one, where their turn comes."""
        ids: list[str] = []
        with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.multi()
            for spec in specs:
                if spec.unique is not None or spec.after is not None:
                    self._send(pipeline)
                    ids.append(self.submit(spec))
                else:
                    ids.append(new_id())
                    _enqueue(pipeline, self._job(spec, ids[-1], ()), spec, self._options(spec, ids[-1], False, None))
            self._send(pipeline)
        return ids

    def _check_signed(self, record: JobRecord) -> None:
        """What lies in Redis is not signed anew unless somebody trusted has signed it. Raises QueueError."""
        signing = self._signing()
        if signing is None:
            return
        try:
            signing.trusted.verify_job(record.signature, record.id, record.queue, record.document, may_be_old=True)
        except SignatureError as error:
            raise QueueError(
                f"cannot retry job {record.id}: what Redis has of it would be signed anew, and {error}",
                "submit it again from its own document, or name the key in [worker] trusted_keys",
            ) from error

    def _options(self, spec: JobSpec, job_id: str, client_lease: bool, retry_of: str | None) -> str:
        stated = {
            "need": stated_need(spec),
            "delay": spec.delay_seconds,
            "queue_timeout": spec.queue_timeout_seconds,
            "unique": spec.unique,
            "client": CLIENT_SECONDS if client_lease else None,
            "retry_of": retry_of,
            "signature": self._sign(spec, job_id),
        }
        return json.dumps({name: value for name, value in stated.items() if value is not None})

    def _sign(self, spec: JobSpec, job_id: str) -> str | None:
        signing = self._signing()
        if signing is None:
            return None
        return signing.key.sign_job(job_id, spec.queue, spec.to_document(), spec.delay_seconds or 0.0)

    def _send(self, pipeline: Pipeline) -> None:
        if len(pipeline):
            with translated(self._redis):
                pipeline.execute()
            pipeline.multi()

    def _write(self, spec: JobSpec, job_id: str, after: Sequence[str], options: str) -> bytes:
        """One job's transaction, again when a job that it is to run after has moved meanwhile; enqueue.lua's answer."""
        while True:
            with self._redis.pipeline(transaction=True) as pipeline, contextlib.suppress(WatchError):
                _enqueue(pipeline, self._job(spec, job_id, after), spec, options)
                answer: bytes = pipeline.execute()[-1]
                return answer

    def _resolve(self, spec: JobSpec) -> tuple[str, ...]:
        """The whole ids of the jobs to run after. Raises JobNotFound, AmbiguousId."""
        if spec.after is None:
            return ()
        records = Records(self._redis)
        return tuple(records.find(prefix) for prefix in spec.after.ids)

    def _job(self, spec: JobSpec, job_id: str, after: Sequence[str]) -> Job:
        return Job.create(
            FUNCTION,
            args=[spec.to_document()],
            connection=self._redis,
            id=job_id,
            origin=class_name(spec.queue, Demand.of(spec)),
            serializer=Serializer,
            timeout=-1 if spec.timeout_seconds is None else ceil(spec.timeout_seconds),
            result_ttl=RETAIN_SECONDS,
            failure_ttl=RETAIN_SECONDS,
            description=_describe(spec),
            depends_on=Dependency(list(after), allow_failure=_accepts_failure(spec)) if after else None,
        )


def cancel(redis: Redis, job_id: str, *, now: bool = False, message: str, reason: str = "") -> bool:
    """Producer.cancel() with a reason that the record keeps. Raises JobNotFound."""
    while True:
        answer = scripts.CANCEL(redis, job_id, "kill" if now else "cancel", reason).decode()
        if answer == "missing":
            raise JobNotFound(job_id)
        if answer != "unstarted":
            return bool(answer == "flagged")
        if aftermath.conclude(redis, job_id, Outcome.CANCELLED, message, reason=reason or None):
            return True
        # A worker took it between the two: ask again.


def _enqueue(pipeline: Pipeline, job: Job, spec: JobSpec, options: str) -> None:
    """Buffer RQ's writes for one job, and then ours."""
    # By its text: a server that does not know the digest would refuse in the middle of the transaction. Once is enough.
    script = scripts.ENQUEUE
    by = ("EVALSHA", script.sha) if len(pipeline) else ("EVAL", script.source)
    queue = Queue(job.origin, connection=job.connection, serializer=JSONSerializer)
    if spec.delay_seconds is not None and spec.after is None:
        queue.schedule_job(job, datetime.now(UTC) + timedelta(seconds=spec.delay_seconds), pipeline=pipeline)
        state = State.DELAYED
    else:
        queue.enqueue_job(job, pipeline=pipeline)
        state = State.WAITING if job.get_status(refresh=False) == JobStatus.DEFERRED else State.QUEUED
    pipeline.execute_command(*by, 0, job.id, job.origin, state.value, options)  # type: ignore[no-untyped-call]


def _accepts_failure(spec: JobSpec) -> bool:
    return spec.after is not None and spec.after.when is AfterWhen.ANY


def _describe(spec: JobSpec) -> str:
    """What `rq info` and rq-dashboard call the job."""
    if spec.name is not None:
        return spec.name
    words = " ".join(spec.command or ()) or (spec.script or "").strip().partition("\n")[0]
    return words[:_DESCRIPTION_LETTERS] or f"the command of {spec.image or 'the default image'}"


def _chunks(specs: Iterable[JobSpec], size: int) -> Iterator[list[JobSpec]]:
    rest = iter(specs)
    while chunk := list(islice(rest, size)):
        yield chunk
