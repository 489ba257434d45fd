"""Job ids: ULIDs (https://github.com/ulid/spec), 26 characters that sort by time of birth."""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base32: no I, L, O, U
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_LENGTH = 26


def new_id() -> str:
    """A fresh id: 48 bits of milliseconds since the epoch, then 80 random bits."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


def is_id(text: str) -> bool:
    """Whether `text` is a whole id as new_id() writes it."""
    return len(text) == _LENGTH and text[0] <= "7" and set(text) <= set(_ALPHABET)
