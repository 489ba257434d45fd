"""Signals by name and number, as documents, images and results write them."""

from __future__ import annotations

import signal


def parse_signal(text: str) -> int:
    """The number of "SIGTERM", "term", "RTMIN+3" or "15"; ValueError when there is no such signal."""
    word = text.upper().removeprefix("SIG")
    if word.isascii() and word.isdigit() and len(word) <= 3:
        return check_signal(int(word))
    base, sign, offset = _split_offset(word)
    number = signal.Signals.__members__.get(f"SIG{base}")
    if number is None or (offset and not base.startswith("RT")):
        raise ValueError(f"no signal is called {text[:40]!r}; write a name such as SIGTERM or a number from 1 to 64")
    return check_signal(int(number) + (offset if sign == "+" else -offset))


def check_signal(number: int) -> int:
    """`number`, when it is a signal's; ValueError otherwise."""
    if not 1 <= number <= 64:
        raise ValueError(f"must be a signal from 1 to 64, got {number}")
    return number


def signal_name(number: int) -> str:
    """SIGTERM for 15; SIGRTMIN+3 for 37; the bare number where the kernel has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if signal.SIGRTMIN < number < signal.SIGRTMAX else str(number)


def _split_offset(word: str) -> tuple[str, str, int]:
    for sign in "+-":
        base, found, digits = word.partition(sign)
        if found and digits.isascii() and digits.isdigit() and len(digits) <= 2:
            return base, sign, int(digits)
    return word, "+", 0
