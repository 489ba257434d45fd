"""Sizes and durations as people write them: `2G`, `64MiB`, `90s`, `1h30m`, `00:20:00`.

K, M, G are powers of 1024 as Docker has them, with or without `B` or `iB`; a bare number is bytes or seconds.
Every function here raises ValueError with a reason that can follow a field's path.
"""

from __future__ import annotations

MAX_BYTES = 1 << 60
MAX_SECONDS = 10 * 366 * 86400

_SIZE_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5, "e": 6}
_DURATION_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_SIZE_REMEDY = "write a size such as 512M or 2G"
_DURATION_REMEDY = "write a duration such as 90s, 5m, 1h30m or 00:20:00"


def parse_size(text: str) -> int:
    """Bytes of `2G`, `1.5GiB`, `512m`, `4096`; fractions of a byte are dropped."""
    number, unit = _split_number(text)
    power = _SIZE_POWERS.get(unit.lower().removesuffix("b").removesuffix("i"))
    if not number or power is None or unit.lower() in ("i", "ib"):
        raise ValueError(f"{_quote(text)} is not a size; {_SIZE_REMEDY}")
    size = _scale(number, 1024**power)
    if size > MAX_BYTES:
        raise ValueError(f"must be {format_size(MAX_BYTES)} or less, got {_quote(text)}")
    return size


def format_size(size_bytes: int) -> str:
    """`1.5G` for people: the largest unit that leaves at least 1, one decimal where needed."""
    sign, size = ("-", -size_bytes) if size_bytes < 0 else ("", size_bytes)
    if size < 1024:
        return f"{sign}{size} byte" + ("" if size == 1 else "s")
    power = min((size.bit_length() - 1) // 10, 6)
    if round(size / 1024**power, 1) >= 1024 and power < 6:
        power += 1
    return f"{sign}{round(size / 1024**power, 1):.1f}".removesuffix(".0") + "KMGTPE"[power - 1]


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `1h30m`, `1.5s`, `250ms`, `7d`, `01:30:00`, `90`; a thousandth is the finest."""
    seconds = _parse_clock(text) if ":" in text else _parse_units(text)
    if seconds is None:
        raise ValueError(f"{_quote(text)} is not a duration; {_DURATION_REMEDY}")
    if seconds > MAX_SECONDS:
        raise ValueError(f"must be ten years or less, got {_quote(text)}")
    return seconds


def format_duration(seconds: float) -> str:
    """`1h30m`, `2m5s`, `1.5s`, `350ms`, `0s` for people: the two largest units."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    if seconds < 0.9995:
        return f"{round(seconds * 1000)}ms" if seconds >= 0.0005 else "0s"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + "s"
    left, parts = round(seconds), []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, left = divmod(left, length)
        parts.append(f"{count}{unit}" if count else "")
    first = next(index for index, part in enumerate(parts) if part)
    return "".join(parts[first : first + 2])


def _parse_clock(text: str) -> float | None:
    parts = text.split(":")
    if len(parts) != 3 or not all(_is_digits(part) and len(part) <= 6 for part in parts):
        return None
    hours, minutes, seconds = (int(part) for part in parts)
    return float(hours * 3600 + minutes * 60 + seconds) if minutes < 60 and seconds < 60 else None


def _parse_units(text: str) -> float | None:
    number, rest = _split_number(text)
    if number and not rest:
        return _scale(number, 1000) / 1000
    total, largest = 0, MAX_SECONDS * 1000
    while rest:
        unit = _leading_letters(rest)
        length = _DURATION_MS.get(unit, largest)
        if not number or length >= largest:  # unknown, repeated or out of order: 30m1h
            return None
        total, largest = total + _scale(number, length), length
        number, rest = _split_number(rest[len(unit) :])
    return total / 1000 if largest < MAX_SECONDS * 1000 and not number else None


def _split_number(text: str) -> tuple[str, str]:
    """The leading decimal number ("1", "1.5"; "" when there is none) and what follows it."""
    end = _skip_digits(text, 0)
    if 0 < end < len(text) and text[end] == "." and _skip_digits(text, end + 1) > end + 1:
        end = _skip_digits(text, end + 1)
    return (text[:end], text[end:]) if end <= 24 else ("", text)


def _skip_digits(text: str, at: int) -> int:
    while at < len(text) and "0" <= text[at] <= "9":
        at += 1
    return at


def _leading_letters(text: str) -> str:
    end = 0
    while end < len(text) and "a" <= text[end] <= "z":
        end += 1
    return text[:end]


def _scale(number: str, factor: int) -> int:
    """`number` times `factor` in whole numbers: a float would lose bytes above 2^53."""
    whole, _, fraction = number.partition(".")
    return int(whole) * factor + (int(fraction) * factor // 10 ** len(fraction) if fraction else 0)


def _is_digits(text: str) -> bool:
    return text != "" and _skip_digits(text, 0) == len(text)


def _quote(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
