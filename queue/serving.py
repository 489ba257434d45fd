"""Who serves a queue now, and what with: for a client that wants to know whether waiting has a point."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dayfly.jobs.demand import Capacity
from dayfly.queue import keys
from dayfly.queue.commands import ask, ask_each

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis import Redis

    from dayfly.queue.commands import Argument

_FIELDS = ("hostname", "dayfly_offer", "dayfly_labels")


@dataclass(frozen=True, slots=True)
class Server:
    """A worker as its record tells: where it runs, what it has when empty, what jobs may ask it for."""

    hostname: str
    offer: Capacity
    labels: Mapping[str, str]


def about(offer: Capacity, labels: Mapping[str, str]) -> dict[str, str]:
    """What a worker writes into its record for servers_of()."""
    amounts = (offer.cpus_milli, offer.memory_mib, offer.disk_mib)
    return {"offer": ":".join(map(str, amounts)), "labels": json.dumps(dict(labels))}


def servers_of(redis: Redis, queue: str) -> list[Server]:
    """The workers of a queue whose records have not expired. Raises a QueueError."""
    workers = ask(redis, "SMEMBERS", keys.workers_of(queue))
    commands: list[tuple[Argument, ...]] = [("HMGET", worker, *_FIELDS, "death") for worker in workers]
    found = ask_each(redis, commands)
    return [_read(*fields) for *fields, death in found if death is None and None not in fields]


def _read(hostname: bytes, offer: bytes, labels: bytes) -> Server:
    cpus_milli, memory_mib, disk_mib = map(int, offer.split(b":"))
    return Server(hostname.decode(), Capacity(cpus_milli, memory_mib, disk_mib), json.loads(labels))
