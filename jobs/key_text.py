"""A key as it stands in a file: one line, `KIND BASE64`; lines that begin with # are for people.

    hmac-sha256       signs and verifies: whoever can verify can also sign
    ed25519-secret    signs                           ed25519-public   verifies
    x25519-secret     opens what is sealed (secrets)  x25519-public    seals

A key's id is the beginning of a digest of its public half (of itself for hmac-sha256), so that it need not be kept, and
both halves have the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass, field
from enum import StrEnum

from dayfly.jobs import curves

_ID_LETTERS = 16


class KeyKind(StrEnum):
    """The first word of a key's line."""

    HMAC = "hmac-sha256"
    ED25519 = "ed25519-secret"
    ED25519_PUBLIC = "ed25519-public"
    X25519 = "x25519-secret"
    X25519_PUBLIC = "x25519-public"

    @property
    def is_secret(self) -> bool:
        return self in (KeyKind.HMAC, KeyKind.ED25519, KeyKind.X25519)


@dataclass(frozen=True, slots=True)
class Key:
    """`raw` has 32 bytes and is never shown."""

    kind: KeyKind
    raw: bytes = field(repr=False)

    @property
    def id(self) -> str:
        shown = self.raw if self.kind is KeyKind.HMAC else self.public().raw
        # The prefix keeps an HMAC key's id apart from every other use of its digest.
        return hashlib.sha256(b"dayfly key id\0" + shown).hexdigest()[:_ID_LETTERS]

    def public(self) -> Key:
        """The half that may be shown; itself when it is one. Raises ValueError for an HMAC key, which has none."""
        if self.kind is KeyKind.ED25519:
            return Key(KeyKind.ED25519_PUBLIC, curves.public_ed25519(self.raw))
        if self.kind is KeyKind.X25519:
            return Key(KeyKind.X25519_PUBLIC, curves.public_x25519(self.raw))
        if self.kind is KeyKind.HMAC:
            raise ValueError("an hmac-sha256 key has no public half: whoever verifies needs the key itself")
        return self

    def line(self) -> str:
        """What parse_key() reads."""
        return f"{self.kind} {base64.b64encode(self.raw).decode()}"


def generate(kind: KeyKind) -> Key:
    """A new secret key. Raises DayflyError where the kind needs a package that is not there."""
    if kind is KeyKind.HMAC:
        return Key(kind, secrets.token_bytes(curves.RAW_BYTES))
    if kind is KeyKind.ED25519:
        return Key(kind, curves.generate_ed25519())
    if kind is KeyKind.X25519:
        return Key(kind, curves.generate_x25519())
    raise ValueError(f"{kind} is one half of a key: generate the secret one")


def parse_key(text: str) -> Key:
    """The one key of a file. Raises ValueError, which never quotes the text."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if len(lines) != 1 or len(lines[0]) != 2:
        raise ValueError("must hold one line, KIND BASE64, as `dayfly key generate` writes it")
    kind, encoded = lines[0]
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its key is not base64") from None
    if kind not in set(KeyKind) or len(raw) != curves.RAW_BYTES:
        raise ValueError(f"must hold a key of {', '.join(KeyKind)}, {curves.RAW_BYTES} bytes long")
    return Key(KeyKind(kind), raw)
