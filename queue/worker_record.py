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

from dayfly.queue import keys
from dayfly.queue.connection import translated

if TYPE_CHECKING:
    from redis import Redis

RECORD_SECONDS = 480  # RQ's own: its worker_ttl of 420 and 60


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
        with translated(self._redis):
            counters = ("successful_job_count", "failed_job_count", "total_working_time")
            kept = self._redis.hmget(keys.worker(self._name), counters)
            before = {name: value for name, value in zip(counters, kept, strict=True) if value is not None}
            self._write({**self._fields, **before})

    def heartbeat(self) -> None:
        """Raises a QueueError. A record that Redis has lost meanwhile (expiry, FLUSHALL) is written again."""
        with translated(self._redis):
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.expire(keys.worker(self._name), RECORD_SECONDS)
            pipeline.expire(keys.executions(self._name), RECORD_SECONDS)
            pipeline.scard(keys.executions(self._name))
            is_there, _, held = pipeline.execute()
            if is_there:
                self._redis.hset(keys.worker(self._name), "last_heartbeat", _rq_time())
            else:
                self._write({**self._fields, "last_heartbeat": _rq_time(), "state": "busy" if held else "idle"})

    def unregister(self) -> None:
        """As RQ's register_death. Raises a QueueError."""
        with translated(self._redis):
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.srem(keys.WORKERS, keys.worker(self._name))
            for queue in self._queues:
                pipeline.srem(keys.workers_of(queue), keys.worker(self._name))
            pipeline.hset(keys.worker(self._name), "death", _rq_time())
            pipeline.expire(keys.worker(self._name), 60)
            pipeline.execute()

    def _write(self, fields: Mapping[str, str | bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.delete(keys.worker(self._name))
        pipeline.hset(keys.worker(self._name), mapping=dict(fields))
        pipeline.expire(keys.worker(self._name), RECORD_SECONDS)
        pipeline.sadd(keys.WORKERS, keys.worker(self._name))
        for queue in self._queues:
            pipeline.sadd(keys.workers_of(queue), keys.worker(self._name))
        pipeline.execute()

    def _own_address(self) -> str:
        from redis.exceptions import ResponseError

        with translated(self._redis):
            try:
                return str(self._redis.client_info()["addr"])
            except ResponseError:  # not every user may ask
                return "unknown"


def _rq_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
