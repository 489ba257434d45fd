"""A secret as Redis has it: sealed for each of the workers' keys (HPKE), with what it is bound to.

Bound to it, as HPKE's `info`, are its name and the queues whose jobs may have it: whoever changes either in Redis has
something that no key opens. That it comes from somebody who may set secrets is what its signature says, where workers
want signatures: HPKE lets anybody who knows a public key seal for it.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dayfly.jobs import curves
from dayfly.jobs.key_text import Key, KeyKind
from dayfly.jobs.names import check_queue_name, check_secret_name
from dayfly.jobs.secret_use import MAX_VALUE_BYTES, MIN_VALUE_BYTES

_VERSION = 1


class SecretError(ValueError):
    """Why a secret cannot be set, read or opened; never a word of its value."""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """`sealed` is the value for each key's id; `set_at` Unix seconds; `signature` of signed_values(), or None."""

    name: str
    queues: tuple[str, ...]
    sealed: Mapping[str, bytes]
    set_at: float
    signature: str | None = None

    def signed_values(self) -> list[Any]:
        """What a signature is of: all but the time, which nothing is decided by."""
        sealed = {key_id: base64.b64encode(each).decode() for key_id, each in self.sealed.items()}
        return [self.name, list(self.queues), sealed]

    def to_json(self) -> bytes:
        _, queues, sealed = self.signed_values()
        fields = {"version": _VERSION, "queues": queues, "sealed": sealed, "set_at": self.set_at}
        if self.signature is not None:
            fields["signature"] = self.signature
        return json.dumps(fields).encode()

    @staticmethod
    def from_json(name: str, text: bytes) -> SealedSecret:
        """Raises SecretError for anything else than to_json() writes: anybody may have written it."""
        try:
            fields = json.loads(text)
            signature = fields.get("signature")
            return SealedSecret(
                name=check_secret_name(name),
                queues=tuple(check_queue_name(queue) for queue in fields["queues"]),
                sealed={str(key): base64.b64decode(each, validate=True) for key, each in fields["sealed"].items()},
                set_at=float(fields["set_at"]),
                signature=None if signature is None else str(signature),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise SecretError(f"what Redis has of the secret {name[:100]!r} cannot be read") from error


def seal(name: str, value: bytes, queues: Iterable[str], recipients: Iterable[Key], set_at: float) -> SealedSecret:
    """Seal `value` for every recipient. Raises SecretError, DayflyError without the package for it."""
    check_value(value)
    bound = tuple(sorted(set(queues)))
    keys = [key.public() for key in recipients]
    if not bound or not keys:
        raise SecretError("a secret needs a queue whose jobs may have it, and a worker's key to be sealed for")
    if wrong := [key.kind for key in keys if key.kind is not KeyKind.X25519_PUBLIC]:
        raise SecretError(f"secrets are sealed for keys of the kind {KeyKind.X25519_PUBLIC}, not {wrong[0]}")
    info = _info(name, bound)
    return SealedSecret(name, bound, {key.id: curves.seal(key.raw, value, info) for key in keys}, set_at)


def unseal(secret: SealedSecret, keys: Iterable[Key]) -> bytes:
    """The value, opened with the first of `keys` that it was sealed for. Raises SecretError."""
    key = next((key for key in keys if key.id in secret.sealed), None)
    if key is None:
        sealed_for = ", ".join(secret.sealed)[:200]
        raise SecretError(f"it is sealed for {sealed_for}, and this worker has none of these keys")
    try:
        return curves.unseal(key.raw, secret.sealed[key.id], _info(secret.name, secret.queues))
    except curves.WrongKeyError as error:
        raise SecretError(f"it cannot be opened with the key {key.id}: {error}") from error


def check_value(value: bytes) -> None:
    """Raises SecretError for a value that could not be masked or handed over."""
    if len(b"".join(value.split())) < MIN_VALUE_BYTES:
        raise SecretError(f"a secret must have {MIN_VALUE_BYTES} bytes or more beside spaces: it could not be masked")
    if len(value) > MAX_VALUE_BYTES:
        raise SecretError(f"a secret must have {MAX_VALUE_BYTES} bytes or less, got {len(value)}")


def _info(name: str, queues: tuple[str, ...]) -> bytes:
    return json.dumps(["dayfly secret", _VERSION, name, list(queues)], separators=(",", ":")).encode()
