"""What a job sees of its host's files, or has of memory, at a path of its own. As spec.py: frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TMPFS = "tmpfs"


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of the host, seen at `target`, read-only unless `writable`; or TMPFS, an empty directory in
    memory, of `size_bytes` at most."""

    source: str
    target: str
    writable: bool = False
    size_bytes: int | None = None

    def to_document(self) -> dict[str, Any]:
        """The canonical long form."""
        stated = {"source": self.source, "target": self.target}
        more = {"writable": self.writable or None, "size": self.size_bytes}
        return {**stated, **{name: value for name, value in more.items() if value is not None}}
