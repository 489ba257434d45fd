"""The document of the flags laid over one of a file: maps are merged, everything else is replaced.

Before the door looks at either: what the file lacks alone (`artifacts: {when: on_failure}`) a flag may add.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dayfly.jobs import short_forms
from dayfly.jobs.document import Document, Place

_LONG_FORMS: Mapping[str, Callable[[Any], Any]] = {
    "env": short_forms.pairs,
    "labels": short_forms.labels,
    "limits": short_forms.settings,
    "artifacts": short_forms.named("paths"),
    "secrets": short_forms.secrets,
    "retry": short_forms.named("max"),
}


def lay_over(over: Mapping[str, Any], base: Document, *, without_dir: bool = False) -> Document:
    """A document that knows which of its places still are the file's."""
    document = dict(base)
    for field in _replaced(over) | ({"dir"} if without_dir else set()):
        document.pop(field, None)
    others: list[Place] = []
    for field, value in over.items():
        below = _long(field, document.get(field))
        if below is not None:
            document[field] = {**below, **value}
            others += [(field, name) for name in value]
        elif field not in _LONG_FORMS or field not in document:
            document[field] = value
            others.append((field,))
    return Document(document, base.name, base.lines, others)


def _replaced(over: Mapping[str, Any]) -> set[str]:
    """A command or script takes the place of both in the file; a script, of its entrypoint too."""
    if "script" in over:
        return {"command", "script", "entrypoint"}
    return {"command", "script"} if "command" in over else set()


def _long(field: str, value: Any) -> Mapping[str, Any] | None:
    """A map to merge with; None where there is none, or one that is wrong: the door says so, with its line."""
    if field not in _LONG_FORMS or value is None:
        return None
    try:
        form = _LONG_FORMS[field](value)
    except ValueError:
        return None
    return form if isinstance(form, Mapping) else None
