"""A directory of things that appear whole, by one rename, and go away the same way: image layers, frozen directories.

lock               the lock of it all (flock): shared, so that nothing goes; exclusive, to take things away
staging/<token>/   what is being made; `lock` in it is held while its maker lives
staging/<token>    what was taken away, to be deleted without holding up anybody, now or after a crash
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterable, Iterator

from dayfly.runtime.removal import remove_tree


class Staging:
    """The staging area and the lock of the directory `root`."""

    def __init__(self, root: str) -> None:
        self._lock = f"{root}/lock"
        self._staging = f"{root}/staging"
        os.makedirs(self._staging, 0o700, exist_ok=True)

    @contextlib.contextmanager
    def locked(self, *, exclusive: bool) -> Iterator[None]:
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
            yield
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def stage(self) -> Iterator[str]:
        """The path of a new directory, deleted at the end with what is still in it."""
        path = self._new_path()
        with self.locked(exclusive=False):  # no sweep sees the directory without its lock
            os.mkdir(path, 0o700)
            lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            remove_tree(path)
            os.close(lock)

    def take_away(self, path: str) -> None:
        """Rename a thing into the staging area; it is a leftover from now on. Needs the exclusive lock."""
        os.rename(path, self._new_path())

    def leftovers(self) -> list[str]:
        """What was taken away, and what dead makers left. Needs the exclusive lock; stays true without it."""
        return [path for path in self._paths() if not _is_being_made(path)]

    def in_the_making(self) -> list[str]:
        """The directories of living makers. Needs the exclusive lock, so that no maker begins meanwhile."""
        return [path for path in self._paths() if _is_being_made(path)]

    def _paths(self) -> list[str]:
        return [f"{self._staging}/{name}" for name in os.listdir(self._staging)]

    def _new_path(self) -> str:
        return f"{self._staging}/{secrets.token_hex(8)}"


def delete(leftovers: Iterable[str]) -> None:
    """Delete leftovers; another sweep may be deleting the same."""
    for path in leftovers:
        remove_tree(path)


def is_still(fd: int, path: str) -> bool:
    """Whether what was locked has not gone to its place, or away, while its lock was waited for."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _is_being_made(path: str) -> bool:
    """Whether a living maker holds the lock in its directory."""
    try:
        lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
