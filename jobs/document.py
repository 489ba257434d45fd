"""A document as it was read: JSON values that remember their file and lines, and the limits of what is looked at.

Documents come from people and from Redis: their size and depth are checked before anything is made of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from dayfly.jobs.errors import SpecError
from dayfly.jobs.names import shown
from dayfly.jobs.units import format_size

MAX_TEXT_BYTES = 1 << 20
MAX_DOCUMENT_BYTES = 4 << 20
MAX_DEPTH = 32

# Written out, no byte of a document becomes more than six (a control character); short forms gain as much in names.
_MOST_GROWTH = 16
_BYTES_PER_VALUE = 8  # what a value costs beside its text, so that a million empty lists are not free

Place = tuple[str | int, ...]


def compact(value: Any) -> bytes:
    """JSON as the queue keeps it. Text stays as it is: escapes would triple it, and no bound would hold for both."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


class Document(dict[str, Any]):
    """One document of a file. `lines` says where each field stands; a place without a line has its parent's.

    `others` are places that do not come from the file: flags were laid over it.
    """

    def __init__(
        self, fields: Mapping[str, Any], name: str, lines: Mapping[Place, int], others: Collection[Place] = ()
    ) -> None:
        super().__init__(fields)
        self.name = name
        self.lines = lines
        self._others = frozenset(others)

    def has(self, place: Place) -> bool:
        """Whether what stands at `place` is the file's."""
        return not any(place[:depth] in self._others for depth in range(1, len(place) + 1))

    def line(self, place: Place) -> int | None:
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place)


def write_place(place: Place) -> str:
    """`limits.pids`, `mounts[0].source`, `env['A B']`."""
    text = ""
    for step in place:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step and step.replace("-", "_").isidentifier() and step.isascii() and len(step) <= 60:
            text += f".{step}" if text else step
        else:
            text += f"[{shown(step)}]"
    return text


class Complaints:
    """What is wrong with one document, each with its field's path and, where the file is known, its line."""

    def __init__(self, document: Mapping[str, Any], source: str | None) -> None:
        self.errors: list[SpecError] = []
        self._document = document if isinstance(document, Document) else None
        self._source = source or (self._document.name if self._document is not None else None)

    def add(self, place: Place, reason: str, kind: type[SpecError] = SpecError) -> SpecError:
        source, line = self._source, None
        if self._document is not None:
            is_of_file = self._document.has(place)
            source, line = (source, self._document.line(place)) if is_of_file else (None, None)
        error = kind(write_place(place), reason, source=source, line=line)
        self.errors.append(error)
        return error

    def check(self) -> None:
        """Raise all of them as one SpecError, if there are any."""
        if self.errors:
            raise SpecError.together(self.errors)


def plain(document: Mapping[str, Any], complaints: Complaints) -> tuple[dict[str, Any], bool]:
    """A copy of plain JSON values within the limits above; complains of every place that is not.

    Also whether the document may be too large once it is written in full.

    A copy, because what a program hands in may be subclasses, enums or shared, and may even contain itself.
    Raises SpecError at once where going on would be the attack: too deep, too large.
    """
    if not isinstance(document, Mapping):
        raise complaints.add((), f"must be a map of fields, got {shown(document)}")
    copying = _Copy(complaints)
    copy: dict[str, Any] = copying.of(document, ())
    return copy, copying.taken * _MOST_GROWTH > MAX_DOCUMENT_BYTES


class _Copy:
    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._left = MAX_DOCUMENT_BYTES

    @property
    def taken(self) -> int:
        return MAX_DOCUMENT_BYTES - self._left

    def of(self, value: Any, place: Place) -> Any:
        self._take(_BYTES_PER_VALUE)
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return self._finite(float(value), place)
        if len(place) >= MAX_DEPTH:
            raise self._complaints.add(place[:3], f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, Mapping):
            return {self._key(key, place): self.of(item, (*place, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(item, (*place, index)) for index, item in enumerate(value)]
        self._complaints.add(place, "has no value: leave it out or give it one" if value is None else _no_json(value))
        return None

    def _key(self, key: Any, place: Place) -> str:
        if not isinstance(key, str):
            self._complaints.add(place, f"must have names of text only, got {shown(key)}")
        self._take(len(str(key)))
        return str(key)

    def _text(self, text: str, place: Place) -> str:
        size = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        # base64 of the largest standard input is a third longer than that
        limit = MAX_TEXT_BYTES * 4 // 3 + 4 if place == ("stdin", "base64") else MAX_TEXT_BYTES
        if size > limit:
            self._complaints.add(place, f"must be {format_size(limit)} or less, got {format_size(size)}")
            return ""
        self._take(size)
        return str(text)

    def _finite(self, value: float, place: Place) -> float:
        if not math.isfinite(value):
            self._complaints.add(place, f"must be finite, got {value}")
        return value

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise self._complaints.add((), f"is larger than {format_size(MAX_DOCUMENT_BYTES)}")


def _no_json(value: Any) -> str:
    return f"must be text, a number, true, false, a list or a map, got a value of type {type(value).__name__}"
