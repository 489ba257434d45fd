"""Walks the overlay of a container: its upper is what the job wrote, its lower, where there is one, the directory that
the job was given, seen through the upper's whiteouts and opaque directories.

Every step opens ONE component below a directory fd (openat2(2), RESOLVE_ONE_TREE), follows no link and enters nothing
that is mounted there, which the job did not see either (CVE-2018-15664, CVE-2026-41568). Directories are read as a
stream: of millions of names, which cost a job few inodes, one is held at a time. Keepers import this file: lean.
"""

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from dayfly.runtime.syscalls import RESOLVE_ONE_TREE, openat2

MAX_PATH = 4095  # PATH_MAX: who downloads it could not name it
MAX_DEPTH = 128  # three directory fds and three frames of Python a level
UNSEEN = "the job itself could not read it"

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True)
class Found:
    path: str
    name: str
    parent_fd: int
    is_upper: bool


class Visitor(Protocol):
    """Whom the walk asks where to go, and tells what is left out. It ends the walk by raising what is no OSError."""

    def count_entry(self) -> None: ...

    def check_time(self) -> None: ...

    def enters(self, directory: str) -> bool: ...

    def shows(self, lower_fd: int) -> bool: ...

    def selects(self, found: Found) -> bool: ...

    def shown(self, path: str) -> str:
        """A path that the job has chosen, as a warning may have it."""
        ...

    def warn(self, text: str) -> None: ...


def walk(upper_fd: int | None, lower_fd: int | None, prefix: str, visitor: Visitor, depth: int = 0) -> Iterator[Found]:
    """Every regular file of the overlay below `prefix`; a fd is open while its directory is walked."""
    visitor.check_time()
    for name, kind in _entries(upper_fd, visitor):
        yield from _entry(Found(prefix + name, name, upper_fd, True), kind, lower_fd, visitor, depth)  # type: ignore[arg-type]
    for name, kind in _entries(lower_fd, visitor):
        if not _has(upper_fd, name):
            yield from _entry(Found(prefix + name, name, lower_fd, False), kind, None, visitor, depth)  # type: ignore[arg-type]


def _entry(found: Found, kind: str, lower_fd: int | None, visitor: Visitor, depth: int) -> Iterator[Found]:
    """`lower_fd`: the directory below that of an entry of the upper."""
    if kind == "whiteout":
        return
    if len(found.path) > MAX_PATH:
        visitor.warn(f"artifacts below {visitor.shown(found.path)} left out: a path has at most {MAX_PATH} letters")
    elif kind == "f":
        yield found
    elif kind != "d":
        if visitor.selects(found):
            visitor.warn(f"artifact {visitor.shown(found.path)} left out: it is {kind}")
    elif visitor.enters(found.path + "/"):
        upper, lower = (found.parent_fd, lower_fd) if found.is_upper else (None, found.parent_fd)
        yield from _walk_directory(upper, lower, found.name, found.path, visitor, depth)


def _walk_directory(
    upper_fd: int | None, lower_fd: int | None, name: str, path: str, visitor: Visitor, depth: int
) -> Iterator[Found]:
    if depth >= MAX_DEPTH:
        visitor.warn(f"artifacts below {visitor.shown(path)} left out: deeper than {MAX_DEPTH} directories")
        return
    opened: list[int] = []
    try:
        above = _enter(upper_fd, name, opened)
        below = None if above is not None and _is_opaque(above) else _enter_lower(lower_fd, name, opened)
        if below is not None and not visitor.shows(below):
            raise OSError(errno.EACCES, UNSEEN)
        yield from walk(above, below, path + "/", visitor, depth + 1)
    except OSError as error:
        visitor.warn(f"artifacts below {visitor.shown(path)} left out: {why_not(error)}")
    finally:
        for fd in opened:
            os.close(fd)


def why_not(error: OSError) -> str:
    """Why something in the tree could not be opened."""
    return "something is mounted there" if error.errno == errno.EXDEV else error.strerror or str(error)


def _enter(parent_fd: int | None, name: str, opened: list[int]) -> int | None:
    if parent_fd is None:
        return None
    fd = openat2(parent_fd, name, _DIRECTORY, resolve=RESOLVE_ONE_TREE)
    opened.append(fd)
    return fd


def _enter_lower(parent_fd: int | None, name: str, opened: list[int]) -> int | None:
    """None where a directory of the upper covers something else, or nothing."""
    try:
        return _enter(parent_fd, name, opened)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def _entries(directory_fd: int | None, visitor: Visitor) -> Iterator[tuple[str, str]]:
    """Names and kinds, as they come: f, d, whiteout, or what it is in words."""
    if directory_fd is None:
        return
    with os.scandir(directory_fd) as entries:
        for entry in entries:
            visitor.count_entry()
            yield entry.name, _kind(entry)


def _has(directory_fd: int | None, name: str) -> bool:
    if directory_fd is None:
        return False
    try:
        os.stat(name, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_file(follow_symlinks=False):
        return "f"
    if entry.is_dir(follow_symlinks=False):
        return "d"
    if entry.is_symlink():
        return "a symbolic link"
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return "whiteout"
    return _KINDS.get(stat.S_IFMT(status.st_mode), "no regular file")


def _is_opaque(directory_fd: int) -> bool:
    return overlay_xattr(directory_fd, "opaque") == b"y"


def overlay_xattr(fd: int, name: str) -> bytes | None:
    for namespace in _OVERLAY_XATTRS:
        try:
            return os.getxattr(fd, namespace + name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return None
