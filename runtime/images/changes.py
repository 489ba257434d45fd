"""What a layer changes of those below it, as `docker diff` prints it: A added, C changed, D deleted.

A directory that something below it was changed in is changed itself.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from dayfly.runtime.images.below import Below, is_whiteout, open_directory
from dayfly.runtime.images.owners import opaque_mark


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` is A, C or D; `path` begins with a slash."""

    kind: str
    path: str


def changes(upper: int, below: Below, prefix: str = "") -> Iterator[Change]:
    """The changes of the layer in overlay's form at the descriptor `upper`, in order of their paths.

    `prefix`: where in the root it lies. Raises OSError.
    """
    yield from _changes(upper, below, (), prefix)


def _changes(directory: int, below: Below, path: tuple[bytes, ...], prefix: str) -> Iterator[Change]:
    for name in sorted(map(os.fsencode, os.listdir(directory))):
        facts = os.lstat(name, dir_fd=directory)
        where = (*path, name)
        shown = f"{prefix}/{os.fsdecode(b'/'.join(where))}"
        found = below.find(where)
        if is_whiteout(facts):
            yield Change("D", shown)
            continue
        yield Change("A" if found is None else "C", shown)
        if stat.S_ISDIR(facts.st_mode):
            inner = open_directory(directory, name)
            try:
                hides = opaque_mark() in os.listxattr(inner)
                yield from _changes(inner, Below(()) if hides else below, where, prefix)
            finally:
                os.close(inner)
