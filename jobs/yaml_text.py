"""YAML as documents: every field with its line, duplicate keys refused, and no surprises in what a word means.

Built on PyYAML's events rather than its constructors: those know YAML 1.1, in which `on`, `no` and `12:30` are not
text, take any tag, and expand aliases without bound. Here words mean what YAML 1.2's core schema says (`true`, `false`,
`null`, numbers), tags are refused, and an alias costs what it stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from dayfly.jobs.document import MAX_DEPTH, Document, Place, write_place
from dayfly.jobs.errors import SpecError

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is fifty times faster
_MAX_VALUES = 200_000
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = ("", "~", "null", "Null", "NULL")
_CONSTANTS = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}


def read_yaml(text: str, name: str) -> list[Document]:
    """The documents of `text` (`---` between them), empty ones left out; raises SpecError with the line."""
    try:
        return list(_Reader(yaml.parse(text, Loader=_Loader), name).documents())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        line = mark.line + 1 if mark is not None else None
        raise SpecError("", f"is not YAML: {problem}", source=name, line=line) from error


class _Reader:
    def __init__(self, events: Iterator[Any], name: str) -> None:
        self._events = events
        self._name = name
        self._lines: dict[Place, int] = {}
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def documents(self) -> Iterator[Document]:
        for event in self._events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._lines, self._anchors = {}, {}
            first = next(self._events)
            value = self._value(first, ())
            if isinstance(value, dict):
                yield Document(value, self._name, self._lines)
            elif value is not None:
                raise self._error((), "must be a map of fields", first)

    def _value(self, event: Any, place: Place) -> Any:
        self._lines.setdefault(place, _line(event))
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, place)
        if event.tag is not None and event.tag != "!":
            raise self._error(place, f"must not have a tag, got {event.tag[:60]}", event)
        before = self._values
        self._count(1, place, event)
        if len(place) > MAX_DEPTH:
            raise self._error(place[:3], f"is nested more than {MAX_DEPTH} levels deep", event)
        value = self._content(event, place)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _content(self, event: Any, place: Place) -> Any:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(place)
        return _scalar(event.value) if event.implicit[0] else event.value  # else it is in quotes

    def _mapping(self, place: Place) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        while not isinstance(key := next(self._events), yaml.MappingEndEvent):
            if type(key) is not yaml.ScalarEvent:
                raise self._error(place, "must have names of text only", key)
            inner = (*place, key.value)
            if key.value in fields:
                raise self._error(inner, "is there twice", key)
            self._lines[inner] = _line(key)
            fields[key.value] = self._value(next(self._events), inner)
        return fields

    def _sequence(self, place: Place) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, (*place, len(items))))
        return items

    def _alias(self, event: Any, place: Place) -> Any:
        if event.anchor not in self._anchors:
            raise self._error(place, f"*{event.anchor[:60]} stands for nothing above it", event)
        value, size = self._anchors[event.anchor]
        self._count(size, place, event)  # the "billion laughs" are billions by what they stand for
        return value

    def _count(self, values: int, place: Place, event: Any) -> None:
        self._values += values
        if self._values > _MAX_VALUES:
            raise self._error(place[:1], f"the file has more than {_MAX_VALUES} values, aliases written out", event)

    def _error(self, place: Place, reason: str, event: Any) -> SpecError:
        return SpecError(write_place(place), reason, source=self._name, line=_line(event))


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _scalar(text: str) -> Any:
    """What a word without quotes means, by YAML 1.2's core schema."""
    if text in _NULLS:
        return None
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789" or len(text) > 400:
        return text
    return _number(text)


def _number(text: str) -> Any:
    digits = text.lstrip("+-") if text[:1] in "+-" else text
    if len(text) - len(digits) > 1 or "_" in text or not text.isascii():
        return text
    if digits.isdigit():
        return int(text)
    if digits[:2] in ("0x", "0o"):
        return _based(digits, text)
    if text.lower() in _CONSTANTS:
        return float(_CONSTANTS[text.lower()])
    return _decimal(digits, text)


def _based(digits: str, text: str) -> Any:
    try:
        return int(digits, 0) if digits == text else text
    except ValueError:
        return text


def _decimal(digits: str, text: str) -> Any:
    if not all(letter in "0123456789.eE+-" for letter in digits):
        return text
    try:
        return float(text)
    except ValueError:
        return text
