"""A job's hash as text, and what of it several readers need."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dayfly.jobs.plain import from_plain, to_plain
from dayfly.jobs.result import Attempt
from dayfly.queue import keys
from dayfly.queue.commands import ask_each
from dayfly.queue.payload import read_or_refuse

if TYPE_CHECKING:
    from redis import Redis

Fields = Mapping[bytes, bytes]


def fetch(redis: Redis, job_ids: Iterable[str]) -> list[Fields]:
    """The hashes of jobs, in order, in one round trip; empty for what is not there. Raises a QueueError."""
    return ask_each(redis, [("HGETALL", keys.job(job_id)) for job_id in job_ids])


def text(fields: Fields, name: bytes) -> str | None:
    """A field as text; None when it is missing or empty."""
    value = fields.get(name)
    return value.decode(errors="replace") if value else None


def seconds(fields: Fields, name: bytes) -> float | None:
    """A time of ours, or a number of seconds."""
    value = fields.get(name)
    return float(value) if value else None


def rq_time(fields: Fields, name: bytes) -> float | None:
    """A time of RQ's as Unix seconds."""
    value = text(fields, name)
    if value is None:
        return None
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in value else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.strptime(value, form).replace(tzinfo=UTC).timestamp()


def document_of(fields: Fields) -> tuple[Mapping[str, Any], str | None]:
    """The job's document; empty, and why, when it is none of ours (a parked job of a plain RQ producer)."""
    return read_or_refuse(fields.get(b"data", b""))


def queue_of(fields: Fields) -> str:
    return text(fields, b"dayfly_queue") or (text(fields, b"origin") or "").partition("@")[0]


def write_attempt(attempt: Attempt) -> str:
    return json.dumps(to_plain(attempt), separators=(",", ":"))


def read_attempts(lines: bytes | None) -> tuple[Attempt, ...]:
    """The story of earlier attempts, one JSON object a line."""
    return tuple(from_plain(Attempt, json.loads(line)) for line in lines.split(b"\n")) if lines else ()
