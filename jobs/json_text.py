"""JSON and JSON Lines as documents: duplicate keys refused, every field with its line."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from dayfly.jobs.document import Document, Place, write_place
from dayfly.jobs.errors import SpecError

_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


def read_json(text: str, name: str) -> Document:
    """The one document of `text`; raises SpecError with the line of what is wrong."""
    fields = _parse(text, name, 1)
    return Document(fields, name, _Lines(text, name).places)


def read_json_lines(text: str, name: str) -> list[Document]:
    """One document a line, empty lines left out."""
    lines = ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
    return [Document(_parse(line, name, number), name, {(): number}) for number, line in lines]


def _parse(text: str, name: str, first_line: int) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except _DuplicateKeyError:
        _Lines(text, name, first_line)  # says where
        raise AssertionError("a duplicate key that the scan does not see") from None
    except json.JSONDecodeError as error:
        raise SpecError("", f"is not JSON: {error.msg}", source=name, line=first_line + error.lineno - 1) from error
    except RecursionError as error:
        raise SpecError("", "is nested too deep", source=name) from error
    except ValueError as error:  # NaN, a number of thousands of digits
        raise SpecError("", f"is not JSON: {error}", source=name) from error
    if not isinstance(value, dict):
        raise SpecError("", "must be a map of fields", source=name, line=first_line)
    return value


class _DuplicateKeyError(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _DuplicateKeyError
    return fields


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


class _Lines:
    """The line of every key and item in a text that is valid JSON."""

    def __init__(self, text: str, name: str, first_line: int = 1) -> None:
        self.places: dict[Place, int] = {}
        self._text, self._name = text, name
        self._at, self._line = 0, first_line
        self._value(())

    def _value(self, place: Place) -> None:
        letter = self._next()
        self.places[place] = self.places.get(place, self._line)
        if letter == "{":
            self._items(place, "}", self._member)
        elif letter == "[":
            self._items(place, "]", self._item)
        elif letter == '"':
            self._string()
        else:
            while self._at < len(self._text) and self._text[self._at] not in ",]}" + _SPACE:
                self._at += 1

    def _items(self, place: Place, end: str, read: Any) -> None:
        self._at += 1
        index = 0
        while self._next() != end:
            if self._text[self._at] == ",":
                self._at += 1
            read(place, index)
            index += 1
        self._at += 1

    def _member(self, place: Place, _index: int) -> None:
        self._next()
        line = self._line
        key = self._string()
        if (*place, key) in self.places:
            raise SpecError(write_place((*place, key)), "is there twice", source=self._name, line=line)
        self.places[*place, key] = line
        self._next()  # the colon
        self._at += 1
        self._value((*place, key))

    def _item(self, place: Place, index: int) -> None:
        self._value((*place, index))

    def _string(self) -> str:
        text, self._at = _DECODER.raw_decode(self._text, self._at)
        return str(text)

    def _next(self) -> str:
        """The next letter that is no space, without taking it."""
        while self._text[self._at] in _SPACE:
            self._line += self._text[self._at] == "\n"
            self._at += 1
        return self._text[self._at]
