"""What is put in order now and then, because RQ's own code or a process that died has left it behind."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dayfly.queue import aftermath, keys, scripts
from dayfly.queue.commands import Argument, as_text, ask, ask_each

if TYPE_CHECKING:
    from redis import Redis

_RETAIN_SECONDS = 7 * 86400
_PAGE = 500


def classes_of(redis: Redis, queues: Sequence[str]) -> list[str]:
    """The names of the demand classes of `queues` that RQ knows. Raises a QueueError."""
    prefix = keys.jobs_list("")
    names = [key.removeprefix(prefix) for key in as_text(ask(redis, "SMEMBERS", keys.QUEUES))]
    return [name for name in names if "@" in name and name.partition("@")[0] in queues]


def keep_up(redis: Redis, names: Sequence[str], queues: Sequence[str]) -> None:
    """Find lists that RQ's code has touched, release what waits in vain, drop what has expired. Raises a QueueError."""
    if names:
        scripts.RECONCILE(redis, *names)
        _look_after_waiting(redis, names)
    _drop_expired(redis, [*names, *queues])


def _look_after_waiting(redis: Redis, names: Sequence[str]) -> None:
    registries = [f"{keys.RQ}:{registry}:{name}" for name in names for registry in ("deferred", "ready")]
    found = ask_each(redis, [("ZRANGE", registry, 0, _PAGE - 1) for registry in registries])
    ids = [job_id for page in found for job_id in page]
    if not ids:
        return
    stuck = scripts.WAITING(redis, *ids)
    for job_id, parent in zip(stuck[::2], stuck[1::2], strict=True):
        if parent:
            aftermath.doom(redis, job_id.decode(), parent.decode())
        else:
            ask_each(redis, [("ZREM", registry, job_id) for registry in registries])  # its hash is gone


def _drop_expired(redis: Redis, names: Sequence[str]) -> None:
    """RQ drops expired jobs from a registry when somebody counts it, and cancelled ones never."""
    now = time.time()
    commands: list[tuple[Argument, ...]] = []
    for name in names:
        commands += [("ZREMRANGEBYSCORE", f"{keys.RQ}:{ended}:{name}", 0, now) for ended in ("finished", "failed")]
        commands += [("ZREMRANGEBYSCORE", f"{keys.RQ}:canceled:{name}", 0, now - _RETAIN_SECONDS)]
    ask_each(redis, commands)
    old = as_text(ask(redis, "ZRANGEBYSCORE", keys.JOBS, 0, now - _RETAIN_SECONDS, "LIMIT", 0, _PAGE))
    there = ask_each(redis, [("EXISTS", keys.job(job_id)) for job_id in old])
    gone = [job_id for job_id, is_there in zip(old, there, strict=True) if not is_there]
    if gone:
        ask_each(redis, [("ZREM", keys.JOBS, *gone), ("ZREM", keys.IDS, *gone)])
