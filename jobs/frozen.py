"""A dict that does not change. Unlike MappingProxyType it can be pickled, copied, hashed and written as JSON."""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

Value = TypeVar("Value")


class FrozenMap(dict[str, Value]):
    """Made as a dict is made; every change raises TypeError."""

    def __hash__(self) -> int:  # type: ignore[override]  # dict has none because it can change
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMap, (dict(self),)

    def _refuse(self, *_args: Any, **_named: Any) -> NoReturn:
        raise TypeError("this value is frozen: make a new one with dataclasses.replace()")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse
