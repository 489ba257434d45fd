"""Single values of a document read strictly: nothing is coerced, `true` is not 1 and "2" is not 2.

Sizes and durations alone may be numbers or text, since both are how people write them. Each reader returns the value
or raises ValueError with a reason that can follow a field's path.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TypeVar

from dayfly.jobs.names import shown
from dayfly.jobs.signals import check_signal, parse_signal
from dayfly.jobs.units import MAX_BYTES, MAX_SECONDS, format_duration, format_size, parse_duration, parse_size

MIN_CPUS = 0.01  # 1 ms of a 100 ms period, the least that the kernel takes
MAX_CPUS = 8192

_FILE_MODE = re.compile(r"0?[0-7]{3}")

Choice = TypeVar("Choice", bound=StrEnum)


class NotBuiltValueError(ValueError):
    """A value that INTERFACE names and this version does not have yet."""


def read_file_mode(value: object) -> int:
    """Permission bits from octal digits in quotes: what YAML makes of a bare 0400 or 400 is no telling."""
    if not isinstance(value, str) or not _FILE_MODE.fullmatch(value):
        raise ValueError(f'must be octal digits in quotes such as "0400", got {shown(value)}')
    return int(value, 8)


def read_size(value: object, *, minimum: int) -> int:
    """Bytes from a whole number or from text such as `2G`."""
    if isinstance(value, str):
        size = parse_size(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        raise ValueError(f"must be a size such as 512M or a whole number of bytes, got {shown(value)}")
    if size < minimum:
        raise ValueError(f"must be {format_size(minimum)} or more, got {shown(value)}")
    if size > MAX_BYTES:
        raise ValueError(f"must be {format_size(MAX_BYTES)} or less, got {shown(value)}")
    return size


def read_duration(value: object, *, minimum: float, maximum: float = MAX_SECONDS) -> float:
    """Seconds from a number or from text such as `5m`."""
    if isinstance(value, str):
        seconds = parse_duration(value)
    else:
        seconds = _number(value, "a duration such as 90s or a number of seconds")
    if seconds < minimum:
        raise ValueError(f"must be {format_duration(minimum)} or more, got {shown(value)}")
    if seconds > maximum:
        raise ValueError(f"must be {format_duration(maximum)} or less, got {shown(value)}")
    return float(seconds)


def read_cpus(value: object) -> float:
    cpus = _number(value, "a number of cpus such as 1.5")
    if not MIN_CPUS <= cpus <= MAX_CPUS:
        raise ValueError(f"must be from {MIN_CPUS} to {MAX_CPUS}, got {shown(value)}")
    return float(cpus)


def read_signal(value: object) -> int:
    """A signal's number from its name or number."""
    if isinstance(value, str) and not value.isdigit():
        return parse_signal(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return check_signal(value)
    raise ValueError(f"must be a signal such as SIGTERM or 15, got {shown(value)}")


def read_user(value: object) -> object:
    """YAML reads `user: 1000` as a number; it is a uid all the same."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def read_choice(value: object, *, kind: type[Choice], not_built: tuple[str, ...] = ()) -> Choice:
    """A member of `kind` from its word; `not_built` are the words that a later version will have."""
    if isinstance(value, str):
        if value in not_built:
            raise NotBuiltValueError(f"{value} is not built yet")
        if value in kind.__members__.values():
            return kind(value)
    raise ValueError(f"must be {' or '.join(kind)}, got {shown(value)}")


def _number(value: object, wanted: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be {wanted}, got {shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be finite, got {shown(value)}")
    return value
