"""Secrets in Redis: one hash, a field for each, sealed (jobs/sealed.py). Nothing here can open one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dayfly.jobs.sealed import SealedSecret
from dayfly.queue import keys
from dayfly.queue.commands import ask, ask_each

if TYPE_CHECKING:
    from redis import Redis

_LARGEST_BYTES = 1 << 20  # a largest value for sixteen keys


class SecretRecords:
    """Every method may raise a QueueError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def put(self, secret: SealedSecret) -> None:
        """Set it, in place of one of the same name."""
        ask(self._redis, "HSET", keys.SECRETS, secret.name, secret.to_json())

    def get(self, names: Iterable[str]) -> dict[str, SealedSecret | None]:
        """Those of `names`; None for one that is not there. Raises SecretError for one that cannot be read."""
        wanted = list(names)
        sizes = ask_each(self._redis, [("HSTRLEN", keys.SECRETS, name) for name in wanted])
        small = [name for name, size in zip(wanted, sizes, strict=True) if size <= _LARGEST_BYTES]
        found = dict(zip(small, ask(self._redis, "HMGET", keys.SECRETS, *small), strict=True)) if small else {}
        return {name: SealedSecret.from_json(name, text) if (text := found.get(name)) else None for name in wanted}

    def ls(self) -> list[SealedSecret]:
        """All, by name. Raises SecretError for one that cannot be read."""
        names = sorted(name.decode(errors="replace") for name in ask(self._redis, "HKEYS", keys.SECRETS))
        return [secret for secret in self.get(names).values() if secret is not None]

    def rm(self, names: Iterable[str]) -> list[str]:
        """Remove them: those that were there."""
        wanted = list(names)
        gone = ask_each(self._redis, [("HDEL", keys.SECRETS, name) for name in wanted])
        return [name for name, count in zip(wanted, gone, strict=True) if count]
