"""Collects a job's artifacts into the store, from directories that the job has written: hostile input throughout.

Runs in the keeper after the job's last process is dead and before its layers go, so nothing moves under it. It still
trusts no name: every step opens ONE component below a directory fd with O_NOFOLLOW, which is RESOLVE_BENEATH and
RESOLVE_NO_SYMLINKS by construction; a directory on another device is not entered (CVE-2018-15664, CVE-2026-41568).
Regular files only. A tree is an overlay: its upper is what the job wrote, its lower (where given) is the directory
that the job was given, seen through the upper's whiteouts and opaque directories. Keepers import this file: lean.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from dayfly.runtime.view import View
from dayfly.worker.blob import Unreadable, copy_into
from dayfly.worker.exit import Artifact
from dayfly.worker.record import ArtifactRules

MAX_FILES = 100_000
MAX_BYTES = 64 << 30
MAX_WARNINGS = 50
MAX_NAMED = 20  # of the files that the store did not take
MAX_DEPTH = 128  # two directory fds and two frames of Python a level

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_UNSEEN = "the job itself could not read it"
_OVERLAY_XATTRS = ("trusted.overlay.", "user.overlay.")


@dataclass(frozen=True)
class Tree:
    """One overlay of the container: where it is mounted, its upper, and the lower that belongs to the job if any.

    `view`: what the job may read of the lower; None: whatever we may.
    """

    prefix: str
    upper_fd: int
    lower_fd: int | None = None
    view: View | None = None


@dataclass(frozen=True)
class Collected:
    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...]


def collect(
    rules: ArtifactRules, trees: Sequence[Tree], store: str, reason_to_stop: Callable[[], str | None]
) -> Collected:
    """Copies every file that `rules` select into the store at `store`.

    `reason_to_stop` is asked for each directory and each MiB: once it gives one, what has not been taken is left, and a
    warning says so. What the store does not take is named in a warning with the reason.
    """
    collection = _Collection(rules, store, reason_to_stop)
    try:
        for tree in trees:
            collection.take_tree(tree)
    except _Stopped as stop:
        collection.warn(f"artifacts: stopped after {len(collection.artifacts)} files: {stop}")
    else:
        collection.warn_of_unmatched()
    return Collected(tuple(collection.artifacts), (*collection.not_stored(), *collection.bounded_warnings()))


class _Stopped(Exception):  # noqa: N818 - it ends a walk, it is no fault
    """A bound of the whole collection is reached."""


class _Skipped(Exception):  # noqa: N818 - it leaves out one file, it is no fault
    """One file is left out, for the reason in the message."""


@dataclass
class _Collection:
    rules: ArtifactRules
    store: str
    reason_to_stop: Callable[[], str | None]
    artifacts: list[Artifact] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)  # why the store did not take which
    left_out: int = 0
    bytes_taken: int = 0
    view: View | None = None  # of the lower that is walked

    def __post_init__(self) -> None:
        import re

        self.include = [re.compile(pattern, re.DOTALL) for pattern in self.rules.include]
        self.exclude = [re.compile(pattern, re.DOTALL) for pattern in self.rules.exclude]
        self.matched = [False] * len(self.include)

    def take_tree(self, tree: Tree) -> None:
        lower_fd = tree.lower_fd if self.include else None
        self.view = tree.view
        prefix = "" if tree.prefix == "/workspace" else tree.prefix.rstrip("/") + "/"
        try:
            for found in _walk(tree.upper_fd, lower_fd, prefix, self):
                if self.selects(found):
                    self.take(found)
        except OSError as error:
            self.warn(f"artifacts in {tree.prefix} left out: {error.strerror}")

    def selects(self, found: "_Found") -> bool:
        hits = [number for number, pattern in enumerate(self.include) if pattern.match(found.path)]
        if not hits and not (self.rules.changed and found.is_upper):
            return False
        for number in hits:
            self.matched[number] = True
        return not any(pattern.match(found.path) for pattern in self.exclude)

    def take(self, found: "_Found") -> None:
        if len(self.artifacts) >= MAX_FILES:
            raise _Stopped(f"the limit is {MAX_FILES} files")
        try:
            _check_name(found.path)
            artifact = _store_file(found, self)
        except _Skipped as reason:
            self.warn(f"artifact {found.path!a} left out: {reason}")
            return
        except OSError as error:  # of the store: a smaller file may still fit
            self.refused.setdefault(error.strerror or str(error), []).append(found.path)
            return
        self.bytes_taken += artifact.size_bytes
        self.artifacts.append(artifact)

    def enters(self, directory: str) -> bool:
        """Whether a file that the rules could select may lie in `directory` (its path ends in a slash)."""
        is_absolute = directory.startswith("/")
        return self.rules.changed or any(
            is_absolute == start.startswith("/") and (directory.startswith(start) or start.startswith(directory))
            for start in map(_slashed, self.rules.within)
        )

    def shows(self, lower_fd: int) -> bool:
        """Whether the job could have read it itself: the keeper can read more."""
        return self.view is None or self.view.shows(lower_fd)

    def check_time(self) -> None:
        reason = self.reason_to_stop()
        if reason is not None:
            raise _Stopped(reason)

    def warn(self, text: str) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(text)
        else:
            self.left_out += 1

    def warn_of_unmatched(self) -> None:
        for label, was_matched in zip(self.rules.labels or self.rules.include, self.matched, strict=True):
            if not was_matched:
                self.warn(f"artifact pattern {label!a} matches no file{_reach(label)}")

    def not_stored(self) -> Iterator[str]:
        for why, paths in self.refused.items():
            named = ", ".join(ascii(path) for path in paths[:MAX_NAMED])
            more = f" and {len(paths) - MAX_NAMED} more" if len(paths) > MAX_NAMED else ""
            yield f"artifacts: {named}{more} cannot be stored in {self.store}: {why}"

    def bounded_warnings(self) -> tuple[str, ...]:
        more = [f"artifacts: {self.left_out} more warnings left out"] if self.left_out else []
        return (*self.warnings, *more)


@dataclass(frozen=True)
class _Found:
    path: str
    name: str
    parent_fd: int
    is_upper: bool


def _walk(
    upper_fd: int | None, lower_fd: int | None, prefix: str, collection: _Collection, depth: int = 0
) -> Iterator[_Found]:
    """Every regular file of the overlay below `prefix`, in name order; a fd is open while its directory is walked."""
    collection.check_time()
    above = _entries(upper_fd)
    below = {name: kind for name, kind in _entries(lower_fd).items() if name not in above or kind == above[name] == "d"}
    for name in sorted(above.keys() | below.keys()):
        kind = above.get(name) or below[name]
        path = prefix + name
        if kind == "f":
            is_upper = name in above
            yield _Found(path, name, upper_fd if is_upper else lower_fd, is_upper)  # type: ignore[arg-type]
        elif kind == "d" and collection.enters(path + "/"):
            yield from _walk_directory(
                upper_fd if name in above else None, lower_fd if name in below else None, name, path, collection, depth
            )
        elif kind not in ("d", "whiteout") and collection.selects(_Found(path, name, -1, name in above)):
            collection.warn(f"artifact {path!a} left out: it is {kind}")


def _walk_directory(
    upper_fd: int | None, lower_fd: int | None, name: str, path: str, collection: _Collection, depth: int
) -> Iterator[_Found]:
    if depth >= MAX_DEPTH:
        collection.warn(f"artifacts below {path[:200]!a} left out: deeper than {MAX_DEPTH} directories")
        return
    opened: list[int] = []
    try:
        above = _enter(upper_fd, name, opened)
        below = None if above is not None and _is_opaque(above) else _enter(lower_fd, name, opened)
        if below is not None and not collection.shows(below):
            raise OSError(errno.EACCES, _UNSEEN)
        yield from _walk(above, below, path + "/", collection, depth + 1)
    except OSError as error:
        collection.warn(f"artifacts below {path!a} left out: {error.strerror}")
    finally:
        for fd in opened:
            os.close(fd)


def _enter(parent_fd: int | None, name: str, opened: list[int]) -> int | None:
    if parent_fd is None:
        return None
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    opened.append(fd)
    if os.fstat(fd).st_dev != os.fstat(parent_fd).st_dev:
        raise OSError(errno.EXDEV, "another file system is mounted there")
    return fd


_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def _entries(directory_fd: int | None) -> dict[str, str]:
    """Name to kind: f, d, whiteout, or what it is in words."""
    if directory_fd is None:
        return {}
    with os.scandir(directory_fd) as entries:
        return {entry.name: _kind(entry) for entry in entries}


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
    return _overlay_xattr(directory_fd, "opaque") == b"y"


def _overlay_xattr(fd: int, name: str) -> bytes | None:
    for namespace in _OVERLAY_XATTRS:
        try:
            return os.getxattr(fd, namespace + name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return None


def _check_name(path: str) -> None:
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in path):
        raise _Skipped("its name is not UTF-8")
    if any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in path):
        raise _Skipped("its name holds a control character")


def _reach(label: str) -> str:
    """What somebody who expected files of the image or of a mount should know."""
    is_elsewhere = label.startswith("/") and not _slashed(label).startswith("/workspace/")
    return "; outside /workspace only what the job wrote is collected" if is_elsewhere else ""


def _slashed(start: str) -> str:
    return start.rstrip("/") + "/" if start.rstrip("/") else start


def _store_file(found: _Found, collection: _Collection) -> Artifact:
    try:
        fd = os.open(found.name, _FILE, dir_fd=found.parent_fd)
    except OSError as error:
        raise _Skipped(error.strerror) from error
    try:
        status = os.fstat(fd)
        _check_file(fd, status, collection)
        if not found.is_upper and not collection.shows(fd):
            raise _Skipped(_UNSEEN)
        digest = copy_into(collection.store, fd, status.st_size, collection.check_time)
    except Unreadable as error:
        raise _Skipped(str(error)) from error
    finally:
        os.close(fd)
    return Artifact(found.path, status.st_size, digest, stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime)


def _check_file(fd: int, status: os.stat_result, collection: _Collection) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Skipped("it is no regular file")
    if collection.bytes_taken + status.st_size > MAX_BYTES:
        raise _Skipped(f"with it there would be more than {MAX_BYTES >> 30} GiB of artifacts")
    # A copy-up of the attributes alone has the size but no content of its own (overlayfs, "metacopy").
    if status.st_blocks == 0 and status.st_size and _overlay_xattr(fd, "metacopy") is not None:
        raise _Skipped("only its attributes were changed, and its content lies in the image")
