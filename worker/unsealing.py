"""The secrets of a job that is about to start: fetched, checked, opened. Nothing of them is kept here."""

from typing import TYPE_CHECKING

from dayfly.jobs.errors import SpecError
from dayfly.jobs.key_text import Key
from dayfly.jobs.sealed import SealedSecret, SecretError, check_value, unseal
from dayfly.jobs.secret_use import MAX_TOGETHER_BYTES, SecretUse
from dayfly.jobs.signatures import SECRET, SignatureError, TrustedKeys
from dayfly.jobs.spec import JobSpec
from dayfly.queue.secret_records import SecretRecords
from dayfly.runtime import syscalls
from dayfly.worker.keyring import secret_keys
from dayfly.worker.settings import WorkerSettings

if TYPE_CHECKING:
    from redis import Redis


class Unsealer:
    """Opens secrets for one worker. `trusted`: whose secrets are believed, None: anybody's.

    Its keys are read when there is something to open, so that a new one needs no new worker.
    """

    def __init__(self, settings: WorkerSettings, redis: "Redis", trusted: TrustedKeys | None) -> None:
        """Raises DayflyError for keys that must not be used."""
        self._settings = settings
        self._records = SecretRecords(redis)
        self._trusted = trusted
        secret_keys(settings)  # a worker with a key that it must not use does not start

    def values(self, spec: JobSpec, queue: str) -> dict[str, bytes]:
        """What a job of `queue` asks for, by name. Raises SpecError with the field's path, QueueError."""
        if not spec.secrets:
            return {}
        keys = secret_keys(self._settings)
        if not keys:
            raise SpecError("secrets", "this worker has no key to open any with ([worker] secret_keys)")
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # for moments the values are in our memory, too
        values = {use.name: self._value(use, queue, keys) for use in spec.secrets}
        if sum(map(len, values.values())) > MAX_TOGETHER_BYTES:
            raise SpecError("secrets", f"must have {MAX_TOGETHER_BYTES} bytes or less together")
        return values

    def _value(self, use: SecretUse, queue: str, keys: tuple[Key, ...]) -> bytes:
        path = f"secrets.{use.name}"
        try:
            secret = self._records.get([use.name])[use.name]
            if secret is None:
                raise SpecError(path, "there is no such secret; `dayfly secret ls` lists them")
            if queue not in secret.queues:
                raise SpecError(path, f"is not for jobs of the queue {queue}; `secret set --queue` says for which")
            self._check_signature(secret)
            value = unseal(secret, keys)
            check_value(value)
        except (SecretError, SignatureError) as error:
            raise SpecError(path, str(error)) from error
        if use.env is not None and b"\0" in value:
            raise SpecError(path, "has a NUL byte, which no variable can hold: give it as a file")
        return value

    def _check_signature(self, secret: SealedSecret) -> None:
        """A secret is set once and used for long: its signature does not end."""
        if self._trusted is not None:
            self._trusted.verify(SECRET, secret.signature, secret.signed_values(), may_be_old=True)
