"""What lies below a layer: the merged view of the layers under it, looked at without mounting anything.

A layer's archive leaves out what the layers below already have. A path whose parent is only down there, or is a
symlink down there (`/bin` of a merged-/usr base), a hard link to a file down there, a whiteout of something that is not
there at all: each needs to be looked up as overlay would see it.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

from dayfly.runtime.images.owners import opaque_mark
from dayfly.runtime.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

Path = tuple[bytes, ...]
_MAX_LINKS = 40  # as the kernel has it


@dataclass(frozen=True, slots=True)
class Found:
    """Where the topmost thing of that path lies: below which directory descriptor, at which path, and its lstat."""

    fd: int
    path: bytes
    stat: os.stat_result

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.stat.st_mode)


class Below:
    """The layers under the one being unpacked, as descriptors of their trees, the top one first."""

    def __init__(self, layers: Sequence[int]) -> None:
        self._layers = tuple(layers)

    def __bool__(self) -> bool:
        return bool(self._layers)

    def find(self, path: Path) -> Found | None:
        """What overlay would show at `path` (no part of it a symlink), or None."""
        holders: Sequence[int] = self._layers
        found = None
        for depth in range(len(path) + 1):
            if found is not None and not found.is_directory:
                return None
            found, holders = _look(holders, b"/".join(path[:depth]) or b".")
            if found is None:
                return None
        return found

    def names(self, path: Path) -> list[bytes]:
        """What overlay would list in the directory at `path`, in order."""
        holders: Sequence[int] = self._layers
        for depth in range(len(path) + 1):
            found, holders = _look(holders, b"/".join(path[:depth]) or b".")
            if found is None or not found.is_directory:
                return []
        where = b"/".join(path) or b"."
        names: dict[bytes, bool] = {}
        for fd in holders:
            directory = open_directory(fd, where)
            try:
                for name in map(os.fsencode, os.listdir(directory)):
                    names.setdefault(name, not is_whiteout(os.lstat(name, dir_fd=directory)))
            finally:
                os.close(directory)
        return sorted(name for name, is_there in names.items() if is_there)

    def resolve(self, path: bytes) -> Path | None:
        """Where `path` leads when these layers are the root, symlinks followed; None when it leads nowhere."""
        found: Path = ()
        todo, links = [part for part in reversed(path.split(b"/")) if part], 0
        while todo:
            part = todo.pop()
            if part in (b".", b""):
                continue
            if part == b"..":
                found = found[:-1]
                continue
            thing = self.find((*found, part))
            if thing is None:
                return None
            if not stat.S_ISLNK(thing.stat.st_mode):
                found = (*found, part)
                continue
            links += 1
            if links > _MAX_LINKS:
                return None
            target = os.readlink(thing.path, dir_fd=thing.fd)
            found = () if target.startswith(b"/") else found
            todo += [each for each in reversed(target.split(b"/")) if each]
        return found

    def top_names(self) -> set[bytes]:
        """The names that the roots of these layers hold."""
        return {os.fsencode(name) for fd in self._layers for name in os.listdir(fd)}


def _look(layers: Sequence[int], path: bytes) -> tuple[Found | None, list[int]]:
    """The topmost thing at `path`, and the layers whose directories there are merged into one."""
    found: Found | None = None
    merged: list[int] = []
    for fd in layers:
        try:
            status = os.lstat(path, dir_fd=fd)
        except FileNotFoundError:
            continue
        if is_whiteout(status):
            break
        if not stat.S_ISDIR(status.st_mode):
            found = found or Found(fd, path, status)
            break
        found = found or Found(fd, path, status)
        merged.append(fd)
        if path != b"." and _is_opaque(fd, path):
            break
    return found, merged


def is_whiteout(status: os.stat_result) -> bool:
    """Overlay's mark of something removed: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def open_directory(fd: int, path: bytes) -> int:
    """Open a directory below `fd`; no part of `path` may be a symlink."""
    return openat2(fd, path, os.O_RDONLY | os.O_DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)


def _is_opaque(fd: int, path: bytes) -> bool:
    directory = open_directory(fd, path)
    try:
        return os.getxattr(directory, opaque_mark()) == b"y"
    except OSError:  # no such attribute
        return False
    finally:
        os.close(directory)
