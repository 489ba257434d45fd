"""Signatures over what a worker acts on, so that write access to Redis alone makes no worker run anything.

What is signed is a statement: what it is about (a job, a secret), until when it holds, the key's id, and the values,
written in one canonical way. For a job these are its id, its queue and its document: image, command, environment,
mounts, user, limits, secrets, all of it. The same document under another id or in another queue is not signed.

    TEXT = "1" ":" key id ":" last second (unix) ":" base64 of HMAC-SHA-256 or Ed25519

Who can write to Redis can still delay, drop, cancel and reorder, and run a signed job again under its own id until the
signature ends: attempts are that too. Hence the end.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dayfly.jobs import curves
from dayfly.jobs.key_text import Key, KeyKind

JOB = "dayfly job"
SECRET = "dayfly secret"
VALID_SECONDS = 7 * 86400.0
FIELD = "dayfly_signature"
"""Where a signature lies: in a job's hash, and in the `meta` of what plain RQ producers enqueue."""

_VERSION = "1"
_LONGEST = 300


class SignatureError(ValueError):
    """Why something is refused, in words for whoever sent it."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What a client signs with: an hmac-sha256 or an ed25519-secret key."""

    key: Key
    valid_seconds: float = VALID_SECONDS

    def __post_init__(self) -> None:
        if self.key.kind not in (KeyKind.HMAC, KeyKind.ED25519):
            raise ValueError(f"a key of the kind {self.key.kind} cannot sign")

    def sign_job(self, job_id: str, queue: str, document: Mapping[str, Any], wait_seconds: float = 0.0) -> str:
        """The signature of one job, valid from now on; `wait_seconds` longer for one that is to be delayed."""
        return self.sign(JOB, [job_id, queue, document], wait_seconds)

    def sign(self, subject: str, values: Any, wait_seconds: float = 0.0) -> str:
        """Raises SignatureError for values that have no canonical form (half of a surrogate pair)."""
        end = int(time.time() + wait_seconds + self.valid_seconds)
        statement = _statement(subject, self.key.id, end, values)
        proof = _hmac(self.key, statement) if self.key.kind is KeyKind.HMAC else curves.sign(self.key.raw, statement)
        return f"{_VERSION}:{self.key.id}:{end}:{base64.b64encode(proof).decode()}"


class TrustedKeys:
    """Whose signatures are believed: hmac-sha256 and ed25519-public keys (the secret half will do)."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = {key.id: key if key.kind is KeyKind.HMAC else key.public() for key in keys}
        if wrong := [key.kind for key in self._keys.values() if key.kind is KeyKind.X25519_PUBLIC]:
            raise ValueError(f"a key of the kind {wrong[0]} cannot verify")

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def verify_job(
        self, signature: str | None, job_id: str, queue: str, document: Mapping[str, Any], *, may_be_old: bool = False
    ) -> None:
        """Raises SignatureError when the job is unsigned, altered, expired, or signed by somebody else."""
        self.verify(JOB, signature, [job_id, queue, document], may_be_old=may_be_old)

    def verify(self, subject: str, signature: str | None, values: Any, *, may_be_old: bool = False) -> None:
        """As verify_job(). `may_be_old`: for who asks whether it was ever signed."""
        key_id, end, proof = _parse(signature)
        key = self._keys.get(key_id)
        if key is None:
            raise SignatureError(f"it is signed with the key {key_id}, which is not trusted here")
        if not _is_genuine(key, proof, _statement(subject, key_id, end, values)):
            raise SignatureError(f"its signature by the key {key_id} is not of this content: it has been altered")
        if not may_be_old and time.time() > end:
            raise SignatureError(f"its signature by the key {key_id} has ended {time.time() - end:.0f} s ago")


@dataclass(frozen=True, slots=True)
class Signing:
    """A client's: what it signs with, and whose documents it may take from Redis and sign anew (`retry`)."""

    key: SigningKey
    trusted: TrustedKeys


def _is_genuine(key: Key, proof: bytes, statement: bytes) -> bool:
    if key.kind is KeyKind.HMAC:
        return hmac.compare_digest(proof, _hmac(key, statement))
    try:
        curves.verify(key.raw, proof, statement)
    except curves.WrongKeyError:
        return False
    return True


def _hmac(key: Key, statement: bytes) -> bytes:
    return hmac.new(key.raw, statement, hashlib.sha256).digest()


def _statement(subject: str, key_id: str, end: int, values: Any) -> bytes:
    """Sorted and compact JSON: what a parser made of the bytes in Redis, and so what is acted on, not the bytes."""
    try:
        text = json.dumps([subject, _VERSION, key_id, end, values], sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise SignatureError(f"it has no canonical form: {type(error).__name__}") from error
    return text.encode()


def _parse(signature: str | None) -> tuple[str, int, bytes]:
    if not signature:
        raise SignatureError("it is not signed, and this worker takes signed ones only")
    parts = signature.split(":")
    try:
        version, key_id, end, proof = parts
        if version != _VERSION or len(signature) > _LONGEST or not (end.isascii() and end.isdigit()):
            raise ValueError
        return key_id, int(end), base64.b64decode(proof, validate=True)
    except (ValueError, binascii.Error):
        raise SignatureError("its signature has a form that is not known here") from None
