"""A job's hash as text, and what of it several readers need."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dayfly.jobs.plain import from_plain, to_plain
from dayfly.jobs.result import Attempt
from dayfly.queue import keys, scripts
from dayfly.queue.commands import ask_each
from dayfly.queue.payload import read_or_refuse

if TYPE_CHECKING:
    from redis import Redis

Fields = Mapping[bytes, bytes]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_OF_WORKERS = (
    *(b"data", b"origin", b"dayfly_queue", b"dayfly_queued_at", b"dayfly_attempt", b"dayfly_attempts"),
    *(b"dayfly_fence", b"dayfly_client", b"dayfly_signature"),
)


def fetch(redis: Redis, job_ids: Iterable[str]) -> list[Fields]:
    """The hashes of jobs, in order, in one round trip; empty for what is not there. Raises a QueueError."""
    return ask_each(redis, [("HGETALL", keys.job(job_id)) for job_id in job_ids])


def fetch_bounded(redis: Redis, job_ids: Sequence[str]) -> list[Fields]:
    """The same for a worker: only the fields that it needs of a job, none larger than a payload may be."""
    return bounded(redis, _OF_WORKERS, map(keys.job, job_ids))


def bounded(redis: Redis, names: Sequence[bytes], hashes: Iterable[str]) -> list[Fields]:
    """Fields of hashes, none larger than a payload may be; none of a key that is no hash. Raises a QueueError."""
    found = scripts.BOUNDED(redis, len(names), *names, *hashes)
    return [{name: value for name, value in zip(names, values, strict=True) if value is not None} for values in found]


def text(fields: Fields, name: bytes) -> str | None:
    """A field as text; None when it is missing or empty."""
    value = fields.get(name)
    return value.decode(errors="replace") if value else None


def seconds(fields: Fields, name: bytes) -> float | None:
    """A time of ours, or a number of seconds; None for what is no number: anybody may have written it."""
    return number(fields.get(name))


def number(value: bytes | None) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        return None


def whole(fields: Fields, name: bytes, default: int, digits: int = 9) -> int:
    """A count of ours, of so many digits at most; the default for what is none."""
    value = fields.get(name, b"")
    return int(value) if value.isdigit() and len(value) <= digits else default


def rq_time(fields: Fields, name: bytes) -> float | None:
    """A time of RQ's as Unix seconds."""
    value = text(fields, name)
    if value is None:
        return None
    form = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in value else "%Y-%m-%dT%H:%M:%SZ"
    try:
        return datetime.strptime(value, form).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def document_of(fields: Fields) -> tuple[Mapping[str, Any], str | None]:
    """The job's document; empty, and why, when it is none of ours (a parked job of a plain RQ producer)."""
    return read_or_refuse(fields.get(b"data", b""))


def queue_of(fields: Fields) -> str:
    return text(fields, b"dayfly_queue") or (text(fields, b"origin") or "").partition("@")[0]


def write_attempt(attempt: Attempt) -> str:
    return json.dumps(to_plain(attempt), separators=(",", ":"))


def read_attempts(lines: bytes | None) -> tuple[Attempt, ...]:
    """The story of earlier attempts, one JSON object a line; what cannot be read is left out."""
    return tuple(attempt for line in (lines or b"").split(b"\n") if (attempt := _read_attempt(line)) is not None)


def read_images(text: bytes) -> Mapping[str, str]:
    """The digests of a job's images; nothing where it is anything else, since anybody may have written it."""
    try:
        found = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: digest for name, digest in pairs if isinstance(digest, str) and _DIGEST.fullmatch(digest)}


def _read_attempt(line: bytes) -> Attempt | None:
    try:
        return from_plain(Attempt, json.loads(line))
    except (ValueError, TypeError, RecursionError):
        return None
