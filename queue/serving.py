"""Who serves a queue now: for a client that wants to know whether waiting has a point."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dayfly.queue import keys
from dayfly.queue.commands import as_text, ask, ask_each

if TYPE_CHECKING:
    from redis import Redis


def hostnames_serving(redis: Redis, queue: str) -> set[str]:
    """The hostnames of the workers of a queue whose records have not expired. Raises a QueueError."""
    workers = ask(redis, "SMEMBERS", keys.workers_of(queue))
    found = ask_each(redis, [("HMGET", worker, "hostname", "death") for worker in workers])
    return set(as_text(hostname for hostname, death in found if hostname is not None and death is None))
