"""Where COPY and ADD put things (docs.docker.com, "COPY"): which sources, at which targets."""

import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Sequence

from dayfly.building.copying import Item, items_below
from dayfly.building.trees import Tree
from dayfly.runtime.images.below import Path
from dayfly.worker.patterns import expression

_WILD = re.compile(r"[*?\[]")


def parts_of(path: str) -> Path:
    """An absolute path as the names in it, `..` and `.` taken away as text."""
    return tuple(os.fsencode(part) for part in posixpath.normpath(path).split("/") if part not in ("", ".", ".."))


def copied(
    tree: Tree,
    sources: Sequence[str],
    destination: str,
    image: Tree,
    is_left_out: Callable[[str], bool],
) -> Iterator[Item]:
    """All that comes of `sources` (paths and globs in `tree`) at `destination`, an absolute path in `image`.

    What a directory holds comes, not the directory itself. `is_left_out` hears of paths in `tree`. Raises ValueError
    for sources that match nothing, and for several with one file to become.
    """
    found = [path for source in sources for path in _matching(tree, source)]
    resolved = image.resolve(destination)
    below = image.look(resolved) if resolved is not None else None
    is_directory = destination.endswith("/") or (below is not None and stat.S_ISDIR(below.st_mode))
    if len(found) > 1 and not destination.endswith("/"):
        raise ValueError("with several sources the destination must end with a slash")
    target = resolved if resolved is not None else parts_of(destination)
    for source, name in found:
        facts = tree.look(source)
        is_whole = facts is not None and stat.S_ISDIR(facts.st_mode)
        place = target if is_whole or not is_directory else (*target, name)
        yield from items_below(tree, source, place, lambda path: is_left_out(os.fsdecode(b"/".join(path))))


def _matching(tree: Tree, source: str) -> list[tuple[Path, bytes]]:
    """The paths that one source means, its symlinks followed within the tree, each with the name that it was called by.

    Raises ValueError for none.
    """
    clean = "/".join(part for part in source.split("/") if part not in ("", "."))
    if not _WILD.search(clean):
        path = tree.resolve(clean or ".")
        if path is None or tree.look(path) is None:
            raise ValueError(f"there is no {source!r}")
        return [(path, os.fsencode(clean.rpartition("/")[2]))]
    found = [(path, path[-1]) for path in _expanded(tree, (), clean.split("/"))]
    if not found:
        raise ValueError(f"nothing matches {source!r}")
    return found


def _expanded(tree: Tree, above: Path, parts: list[str]) -> Iterator[Path]:
    """A glob, part by part: a star ends at a slash."""
    if not parts:
        yield above
        return
    facts = tree.look(above)
    if facts is None or not stat.S_ISDIR(facts.st_mode):
        return
    pattern = re.compile(expression(parts[0]) if parts[0] != "**" else ".*", re.DOTALL)
    for name in tree.names(above):
        if pattern.fullmatch(os.fsdecode(name)):
            yield from _expanded(tree, (*above, name), parts[1:])
