"""Secrets as a client sees them: set, listed and removed, never read back.

A value is sealed here for the workers' public keys and goes to Redis so. Which keys these are is this machine's
configuration to say, never Redis's: whoever may write there could name a key of their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dayfly.config import Settings, home_directory
from dayfly.jobs.errors import DayflyError
from dayfly.jobs.key_text import Key, KeyKind, generate
from dayfly.jobs.names import check_queue_name, check_secret_name
from dayfly.jobs.sealed import SealedSecret, SecretError, seal
from dayfly.jobs.signatures import SECRET
from dayfly.jobs.spec import DEFAULT_QUEUE
from dayfly.queue.key_files import read_keys, write_key
from dayfly.queue.secret_records import SecretRecords
from dayfly.worker.settings import default_secret_key

if TYPE_CHECKING:
    from redis import Redis

    from dayfly.jobs.signatures import Signing


class Secrets:
    """`Client.secrets`. Every method may raise a QueueError."""

    def __init__(
        self, redis: Redis, settings: Settings, signing: Callable[[], Signing | None], *, is_embedded: bool
    ) -> None:
        self._records = SecretRecords(redis)
        self._settings = settings
        self._signing = signing
        self._is_embedded = is_embedded

    def set(
        self,
        name: str,
        value: str | bytes,
        *,
        queues: Iterable[str] = (DEFAULT_QUEUE,),
        recipients: Iterable[Path] = (),
    ) -> SealedSecret:
        """Seal `value` for jobs of `queues` and put it into Redis, in place of one of that name.

        `recipients`: files of public keys, in place of the configured ones. Raises DayflyError.
        """
        try:
            bound = [check_queue_name(queue) for queue in queues]
            raw = value.encode() if isinstance(value, str) else value
            secret = seal(check_secret_name(name), raw, bound, self._recipients(recipients), time.time())
        except ValueError as error:
            raise DayflyError(f"cannot set the secret {name!r}: {error}") from error
        secret = self._signed(secret)
        self._records.put(secret)
        return secret

    def ls(self) -> list[SealedSecret]:
        """All of them, without their values. Raises DayflyError for one that cannot be read."""
        try:
            return self._records.ls()
        except SecretError as error:
            raise DayflyError(f"cannot list the secrets: {error}", "`dayfly secret rm` removes it") from error

    def rm(self, names: Iterable[str]) -> list[str]:
        """Remove them; those that were there."""
        return self._records.rm(names)

    def _signed(self, secret: SealedSecret) -> SealedSecret:
        from dataclasses import replace

        signing = self._signing()
        if signing is None:
            return secret
        return replace(secret, signature=signing.key.sign(SECRET, secret.signed_values()))

    def _recipients(self, given: Iterable[Path]) -> tuple[Key, ...]:
        """The keys to seal for: given, configured, else this host's own, which the embedded worker gets if need be."""
        paths = tuple(given) or tuple(Path(each) for each in self._settings.texts("client.secret_recipients"))
        if not paths:
            paths = tuple(Path(each) for each in self._settings.texts("worker.secret_keys"))
        if paths:
            return read_keys(paths)
        own = default_secret_key(home_directory(self._settings))
        if not own.exists():
            if not self._is_embedded:
                raise DayflyError(
                    "cannot seal a secret: no worker's key is configured here",
                    remedy="set [client] secret_recipients, or give --to, a file that `dayfly key public` wrote",
                )
            write_key(own, generate(KeyKind.X25519))
        return read_keys([own])
