"""Frozen dataclasses to plain JSON values and back, in one place for everything a Result is made of.

A field that holds more than a JSON scalar says in its metadata how it is read: `field(metadata=reads(Usage.read))`.
Keys that a newer Dayfly wrote are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field, fields
from enum import Enum
from typing import Any, ClassVar, Protocol, TypeVar


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


Value = TypeVar("Value", bound=_Dataclass)
Item = TypeVar("Item")


def reads(reader: Callable[[Any], Any]) -> dict[str, Callable[[Any], Any]]:
    """Metadata of a field whose JSON value `reader` turns into the field's value (null stays None)."""
    return {"reads": reader}


def tuple_of(reader: Callable[[Any], Item]) -> Callable[[Iterable[Any]], tuple[Item, ...]]:
    """A reader for a JSON list."""
    return lambda items: tuple(reader(item) for item in items)


def to_plain(value: Any) -> Any:
    """Dataclasses and mappings as dicts, tuples as lists, enums as their values."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    return {each.name: to_plain(getattr(value, each.name)) for each in fields(value)}


def from_plain(kind: type[Value], document: Mapping[str, Any]) -> Value:
    """`kind` from its JSON object; what is missing takes the field's default."""
    values = {}
    for each in fields(kind):
        if each.name in document:
            value, reader = document[each.name], each.metadata.get("reads")
            values[each.name] = reader(value) if reader is not None and value is not None else value
    return kind(**values)
