"""A worker's record among RQ's, as `rq info`, rq-dashboard and Worker.all read it.

RQ's own register_birth raises when a worker of the same name died by SIGKILL a moment ago; ours takes the record over.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dayfly.jobs.errors import QueueError
from dayfly.queue import keys
from dayfly.queue.commands import Argument, ask, ask_each

if TYPE_CHECKING:
    from redis import Redis

RECORD_SECONDS = 480  # RQ's own: its worker_ttl of 420 and 60
_COUNTERS = ("successful_job_count", "failed_job_count", "total_working_time")


class WorkerRecord:
    """`name` is stable over restarts; `queues` are the queues, not their demand classes."""

    def __init__(self, redis: Redis, name: str, queues: Sequence[str]) -> None:
        self._redis = redis
        self._name = name
        self._queues = tuple(queues)
        self._fields: Mapping[str, str] = {}

    def register(self, about: Mapping[str, str]) -> None:
        """`about` is written beside RQ's fields, each name with `dayfly_` before it. Raises a QueueError."""
        import rq

        right_now = _rq_time()
        self._fields = {
            "birth": right_now,
            "last_heartbeat": right_now,
            "queues": ",".join(self._queues),
            "pid": str(os.getpid()),
            "hostname": socket.gethostname(),
            "ip_address": self._own_address(),
            "version": rq.__version__,
            "python_version": sys.version,
            "state": "idle",
            **{f"dayfly_{key}": value for key, value in about.items()},
        }
        # A record that is still there is of the worker of this name that ran before: its counters go on.
        kept = ask(self._redis, "HMGET", keys.worker(self._name), *_COUNTERS)
        before = {name: value for name, value in zip(_COUNTERS, kept, strict=True) if value is not None}
        self._write({**self._fields, **before})

    def heartbeat(self) -> None:
        """Raises a QueueError. A record that Redis has lost meanwhile (expiry, FLUSHALL) is written again."""
        is_there, _, held = ask_each(
            self._redis,
            (
                ("EXPIRE", keys.worker(self._name), RECORD_SECONDS),
                ("EXPIRE", keys.executions(self._name), RECORD_SECONDS),
                ("SCARD", keys.executions(self._name)),
            ),
        )
        if is_there:
            ask(self._redis, "HSET", keys.worker(self._name), "last_heartbeat", _rq_time())
        else:
            self._write({**self._fields, "last_heartbeat": _rq_time(), "state": "busy" if held else "idle"})

    def unregister(self) -> None:
        """As RQ's register_death. Raises a QueueError."""
        key = keys.worker(self._name)
        commands: list[tuple[Argument, ...]] = [("SREM", name, key) for name in self._memberships()]
        commands += [("HSET", key, "death", _rq_time()), ("EXPIRE", key, 60)]
        ask_each(self._redis, commands, atomic=True)

    def _write(self, fields: Mapping[str, str | bytes]) -> None:
        key = keys.worker(self._name)
        flat = [part for pair in fields.items() for part in pair]
        commands: list[tuple[Argument, ...]] = [("DEL", key), ("HSET", key, *flat), ("EXPIRE", key, RECORD_SECONDS)]
        commands += [("SADD", name, key) for name in self._memberships()]
        # `rq info` shows the workers of the queues that it knows, and nobody may have put anything into this one yet.
        commands += [("SADD", keys.QUEUES, keys.jobs_list(queue)) for queue in self._queues]
        ask_each(self._redis, commands, atomic=True)

    def _memberships(self) -> list[str]:
        return [keys.WORKERS, *(keys.workers_of(queue) for queue in self._queues)]

    def _own_address(self) -> str:
        try:
            about = str(ask(self._redis, "CLIENT INFO")["addr"])
        except QueueError:  # not every user may ask, and not every server knows it
            return "unknown"
        return about


def _rq_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
