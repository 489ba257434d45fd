"""Reading jobs: one, by a prefix, many by filters, and waiting for their ends."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from dayfly.jobs.errors import AmbiguousId, JobNotFound
from dayfly.jobs.state import State
from dayfly.queue import fields as job_fields
from dayfly.queue import keys
from dayfly.queue.commands import as_text, ask, ask_each
from dayfly.queue.connection import subscription, translated
from dayfly.queue.job_record import JobRecord, read_record

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import PubSub

_PAGE = 200
_LOOK_SECONDS = 5.0  # how long a lost message can delay a waiter
_ENDED = (b"finished", b"failed", b"stopped", b"canceled")


class Records:
    """Jobs as Redis knows them. Every method may raise a QueueError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def get(self, job_id: str) -> JobRecord:
        """One job by its whole id. Raises JobNotFound."""
        record = self.get_many([job_id])[0]
        if record is None:
            raise JobNotFound(job_id)
        return record

    def get_many(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Jobs by their whole ids, in order and in one round trip; None for one that is not there."""
        found = job_fields.fetch(self._redis, job_ids)
        return [
            read_record(job_id, fields) if b"data" in fields else None
            for job_id, fields in zip(job_ids, found, strict=True)
        ]

    def find(self, prefix: str) -> str:
        """The whole id of the one job whose id begins so, in either case. Raises JobNotFound, AmbiguousId."""
        try:
            return self._find(prefix.upper())
        except JobNotFound:
            return self._find(prefix)  # a job of a plain RQ producer may be called anything

    def _find(self, prefix: str) -> str:
        if not prefix:
            raise JobNotFound(prefix)
        start, end = f"[{prefix}".encode(), f"[{prefix}".encode() + b"\xff"
        is_whole, starting = ask_each(
            self._redis,
            (("EXISTS", keys.job(prefix)), ("ZRANGEBYLEX", keys.IDS, start, end, "LIMIT", 0, 50)),
        )
        if is_whole:
            return prefix
        found = as_text(starting)
        there = [job_id for job_id, fields in zip(found, job_fields.fetch(self._redis, found), strict=True) if fields]
        if not there:
            raise JobNotFound(prefix)
        if len(there) > 1:
            raise AmbiguousId(prefix, there)
        return there[0]

    def all(self) -> Iterator[JobRecord]:
        """Every job, the latest first, a page at a time."""
        return self._newest(None)

    def ls(
        self,
        *,
        state: State | str | None = None,
        queue: str | None = None,
        label: str | None = None,
        name: str | None = None,
        since: float | None = None,
        limit: int | None = None,
    ) -> list[JobRecord]:
        """Jobs, the latest first. `label` is NAME or NAME=VALUE, `since` Unix seconds of submission."""
        found: list[JobRecord] = []
        for record in self._newest(since):
            if limit is not None and len(found) >= limit:
                break
            is_wanted = (
                (state is None or record.state == state)
                and (queue is None or record.queue == queue)
                and (name is None or record.name == name)
                and (label is None or _has_label(record.document.get("labels"), label))
            )
            if is_wanted:
                found.append(record)
        return found

    def wait(self, job_ids: Iterable[str], timeout: float | None = None) -> list[JobRecord]:
        """The records of jobs, once all are finished. Raises TimeoutError after `timeout` seconds, JobNotFound."""
        wanted = list(job_ids)
        for _ in self.finished(wanted, None if timeout is None else time.monotonic() + timeout):
            pass
        return [self.get(job_id) for job_id in wanted]

    def finished(self, job_ids: Iterable[str], deadline: float | None = None) -> Iterator[str]:
        """Each id once, as its job ends. `deadline` is a moment of time.monotonic().

        Raises TimeoutError at the deadline, JobNotFound for a job that is not there or not any more.
        """
        waiting = dict.fromkeys(job_ids)
        with subscription(self._redis) as pubsub:
            # First listen, then look: an end between the two is not missed.
            if waiting:
                with translated(self._redis):
                    pubsub.subscribe(*[keys.job_channel(job_id) for job_id in waiting])
            while waiting:
                for job_id in self._ended(list(waiting)):
                    del waiting[job_id]
                    yield job_id
                yield from self._listen(pubsub, waiting, deadline)

    def _listen(self, pubsub: PubSub, waiting: dict[str, None], deadline: float | None) -> Iterator[str]:
        """What is told until it is time to look again."""
        look_at = time.monotonic() + _LOOK_SECONDS
        while waiting and time.monotonic() < look_at:
            patience = look_at if deadline is None else min(look_at, deadline)
            with translated(self._redis):
                message = pubsub.get_message(timeout=max(patience - time.monotonic(), 0.0))
            if message is not None and message["data"] == b"finished":
                job_id = message["channel"].decode().rpartition(":")[2]
                if job_id in waiting:
                    del waiting[job_id]
                    yield job_id
            elif deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"{len(waiting)} of the jobs have not finished in time: {_some(waiting)}")

    def _ended(self, job_ids: Sequence[str]) -> Iterator[str]:
        states = ask_each(self._redis, [("HGET", keys.job(job_id), "status") for job_id in job_ids])
        for job_id, status in zip(job_ids, states, strict=True):
            if status is None:
                raise JobNotFound(job_id)
            if status in _ENDED:
                yield job_id

    def _newest(self, since: float | None) -> Iterator[JobRecord]:
        start = 0
        lowest = "-inf" if since is None else since
        while True:
            ids = ask(self._redis, "ZREVRANGEBYSCORE", keys.JOBS, "+inf", lowest, "LIMIT", start, _PAGE)
            yield from (record for record in self.get_many(as_text(ids)) if record is not None)
            if len(ids) < _PAGE:
                return
            start += _PAGE


def _has_label(labels: object, wanted: str) -> bool:
    name, is_valued, value = wanted.partition("=")
    return isinstance(labels, Mapping) and name in labels and (not is_valued or labels[name] == value)


def _some(ids: Iterable[str]) -> str:
    return ", ".join(list(ids)[:3])
