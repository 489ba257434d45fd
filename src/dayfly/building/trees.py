"""What COPY copies from: the context's directory, or the root of an image; seen alike, and nothing outside of it."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from dayfly.building.ignoring import Ignored
from dayfly.runtime.images.below import Below, Path
from dayfly.runtime.syscalls import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2

_BENEATH = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Tree(Protocol):
    """Paths are tuples of names below its root."""

    def look(self, path: Path) -> os.stat_result | None:
        """What is there, no symlink followed; None: nothing."""
        ...

    def names(self, path: Path) -> list[bytes]:
        """What a directory holds, in order."""
        ...

    def read_link(self, path: Path) -> bytes: ...

    def open(self, path: Path) -> int:
        """A descriptor of a regular file. Raises OSError."""
        ...

    def resolve(self, text: str) -> Path | None:
        """Where a path leads, symlinks followed as if the root were `/`; None: nowhere."""
        ...


class DirectoryTree:
    """The directory open at `fd`, without what is ignored."""

    def __init__(self, fd: int, ignored: Ignored | None = None) -> None:
        self._fd = fd
        self._ignored = ignored or Ignored()

    def look(self, path: Path) -> os.stat_result | None:
        if path and not self._is_shown(path):
            return None
        return self._look(path)

    def names(self, path: Path) -> list[bytes]:
        with self._opened(path) as fd:
            names = sorted(map(os.fsencode, os.listdir(fd)))
        return [name for name in names if self._is_shown((*path, name))]

    def read_link(self, path: Path) -> bytes:
        with self._opened(path[:-1]) as parent:
            return os.readlink(path[-1], dir_fd=parent)

    def open(self, path: Path) -> int:
        return openat2(self._fd, b"/".join(path), os.O_RDONLY | os.O_NONBLOCK, resolve=_BENEATH)

    def resolve(self, text: str) -> Path | None:
        try:
            fd = openat2(self._fd, text.lstrip("/") or ".", os.O_PATH, resolve=RESOLVE_IN_ROOT)
        except OSError:
            return None
        try:
            real, top = (os.readlink(f"/proc/self/fd/{each}") for each in (fd, self._fd))
        finally:
            os.close(fd)
        return tuple(map(os.fsencode, os.path.relpath(real, top).split("/"))) if real != top else ()

    def _is_shown(self, path: Path) -> bool:
        """A directory that is ignored is there for the exceptions below it, if there are any."""
        text = os.fsdecode(b"/".join(path))
        if not self._ignored.leaves_out(text):
            return True
        if not self._ignored.may_hold_exceptions(text):
            return False
        facts = self._look(path)
        return facts is not None and stat.S_ISDIR(facts.st_mode) and bool(self.names(path))

    def _look(self, path: Path) -> os.stat_result | None:
        try:
            with self._opened(path[:-1]) as parent:
                return os.lstat(path[-1] if path else b".", dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @contextmanager
    def _opened(self, path: Path) -> Iterator[int]:
        fd = openat2(self._fd, b"/".join(path) or b".", os.O_RDONLY | os.O_DIRECTORY, resolve=_BENEATH)
        try:
            yield fd
        finally:
            os.close(fd)


class ImageTree:
    """The layers of an image, merged."""

    def __init__(self, layers: Below) -> None:
        self._layers = layers

    def look(self, path: Path) -> os.stat_result | None:
        found = self._layers.find(path)
        return None if found is None else found.stat

    def names(self, path: Path) -> list[bytes]:
        return self._layers.names(path)

    def read_link(self, path: Path) -> bytes:
        found = self._layers.find(path)
        assert found is not None
        return os.readlink(found.path, dir_fd=found.fd)

    def open(self, path: Path) -> int:
        found = self._layers.find(path)
        if found is None:
            raise FileNotFoundError(b"/".join(path))
        return openat2(found.fd, found.path, os.O_RDONLY | os.O_NONBLOCK, resolve=_BENEATH)

    def resolve(self, text: str) -> Path | None:
        return self._layers.resolve(os.fsencode(text))


def read_file(tree: Tree, text: str, limit: int) -> bytes:
    """The content of a file, empty when there is none; at most `limit` bytes of it."""
    path = tree.resolve(text)
    facts = None if path is None else tree.look(path)
    if path is None or facts is None or not stat.S_ISREG(facts.st_mode):
        return b""
    with open(tree.open(path), "rb") as file:
        return file.read(limit)
