"""Where an entry of an archive goes: its parent directory, resolved inside the layer and never outside it.

A path is cleaned as text first (`a/../b` is `b`, a leading `/` or `..` is the layer's root), as Docker and umoci do.
Then its parents are walked part by part. A symlink on the way is followed as if the layer's root were `/`: what an
archive calls `lib/x` after `lib -> usr/lib` goes to `usr/lib/x`, and after `lib -> /etc` to the layer's own `etc`.
A parent that the archive leaves out is made, with the attributes that it has in the layers below.
"""

import os
import stat

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.attributes import Attributes
from dayfly.runtime.images.below import Below, Found, Path, is_whiteout, open_directory
from dayfly.runtime.images.owners import opaque_mark

_MAX_LINKS = 40  # as the kernel has it
_MAX_PATH_BYTES = 4095
_KEPT_OPEN = 64


def clean(name: bytes, source: str) -> Path:
    """The parts of a name without `.`, `..` and empty ones. Raises ImageError for what no file system can hold."""
    if b"\0" in name or len(name) > _MAX_PATH_BYTES:
        raise ImageError(f"{source}: an entry's name holds a NUL or is longer than a path may be: {name[:80]!r}")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)


class Places:
    """The directories of one layer, opened as its archive's entries need them, and remembered between entries.

    Descriptors stay open until the next `begin`. After `forget` (a directory or a symlink was taken away) that call
    drops them all, since a remembered path may lead elsewhere. `times` receives the times of directories made here.
    """

    def __init__(self, root_fd: int, below: Below, times: dict[Path, int], source: str) -> None:
        self._root = root_fd
        self._below = below
        self._times = times
        self._source = source
        self._open: dict[Path, tuple[int, Path]] = {}
        self._is_stale = False

    def begin(self) -> None:
        """A new entry comes: no descriptor given out before is in use any more."""
        if self._is_stale or len(self._open) >= _KEPT_OPEN:
            self.close()

    def forget(self) -> None:
        self._is_stale = True

    def close(self) -> None:
        for fd, _ in self._open.values():
            os.close(fd)
        self._open.clear()
        self._is_stale = False

    def directory(self, parts: Path) -> tuple[int, Path]:
        """A descriptor of the directory at `parts`, made where missing, and its path without symlinks."""
        known = self._open.get(parts)
        if known is None:
            path = self._walk(parts)
            known = self._open[parts] = open_directory(self._root, b"/".join(path) or b"."), path
        return known

    def _walk(self, parts: Path) -> Path:
        path: Path = ()
        todo, links = list(reversed(parts)), 0
        while todo:
            part = todo.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                path = path[:-1]
                continue
            target = self._enter((*path, part))
            if target is None:
                path = (*path, part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise ImageError(f"{self._source}: symlinks without end at {os.fsdecode(b'/'.join(parts))!r}")
            path = () if target.startswith(b"/") else path
            todo += reversed(target.split(b"/"))
        return path

    def _enter(self, path: Path) -> bytes | None:
        """Make sure that there is a directory at `path`; the target when there is a symlink instead."""
        name = b"/".join(path)
        try:
            status = os.lstat(name, dir_fd=self._root)
        except FileNotFoundError:
            return self._fill_in(path, self._below.find(path))
        if stat.S_ISDIR(status.st_mode):
            return None
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(name, dir_fd=self._root)
        if is_whiteout(status):
            os.unlink(name, dir_fd=self._root)
            self._make(path, None)
            set_opaque(self._root, name)
            return None
        raise ImageError(f"{self._source}: {os.fsdecode(name)!r} is used as a directory and is none")

    def _fill_in(self, path: Path, found: Found | None) -> bytes | None:
        if found is not None and stat.S_ISLNK(found.stat.st_mode):
            return os.readlink(found.path, dir_fd=found.fd)
        self._make(path, found if found is not None and found.is_directory else None)
        return None

    def _make(self, path: Path, like: Found | None) -> None:
        name = b"/".join(path)
        os.mkdir(name, 0o755, dir_fd=self._root)
        attributes = Attributes.of(like.fd, like.path, like.stat) if like else Attributes()
        fd = open_directory(self._root, name)
        try:
            attributes.apply(fd)
        finally:
            os.close(fd)
        self._times[path] = attributes.mtime_ns


def set_opaque(fd: int, name: bytes) -> None:
    """Mark a directory as hiding what the layers below have at its place."""
    directory = open_directory(fd, name)
    try:
        os.setxattr(directory, opaque_mark(), b"y")
    finally:
        os.close(directory)
