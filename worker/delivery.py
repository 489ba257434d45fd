"""Brings artifacts out of the store to the person who asked, never outside the directory they named."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from dayfly.jobs.errors import StoreError
from dayfly.runtime.syscalls import RESOLVE_BENEATH, openat2
from dayfly.worker.store import FileStore

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 20


class Entry(Protocol):
    """One artifact in a result. `path` is relative to /workspace, or absolute for what lay elsewhere."""

    @property
    def path(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def mode(self) -> int: ...
    @property
    def mtime(self) -> float: ...


def deliver(store: FileStore, entries: Iterable[Entry], out: Path, owner: tuple[int, int] | None = None) -> list[Path]:
    """Writes each artifact below `out` at its own path, those from outside /workspace below `out/_root`.

    A file is replaced whole or not at all; `owner` is (uid, gid) when it is not the caller's own. Returns the paths
    written. Raises StoreError when `out` cannot be written, or, after all others, with each artifact that failed: its
    content is gone or damaged, or its place cannot be written.
    """
    written: list[Path] = []
    failures: list[StoreError] = []
    wanted = list(entries)
    try:
        out.mkdir(parents=True, exist_ok=True)
        out_fd = os.open(out, _DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _refused(out, error) from error
    try:
        for entry in wanted:
            try:
                written.append(_deliver_one(store, entry, out, out_fd, owner))
            except StoreError as error:
                failures.append(error)
    finally:
        os.close(out_fd)
    if failures:
        raise _together(failures, len(wanted))
    return written


def relative_parts(path: str) -> Sequence[str]:
    """Where an artifact goes below the output directory. Raises StoreError for a path that no collector made."""
    parts = path.lstrip("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise StoreError(f"refusing artifact with the path {path!r}: it is not a plain path")
    return ["_root", *parts] if path.startswith("/") else parts


def _deliver_one(store: FileStore, entry: Entry, out: Path, out_fd: int, owner: tuple[int, int] | None) -> Path:
    parts = relative_parts(entry.path)
    path = out.joinpath(*parts)
    try:
        with store.open_blob(entry.sha256) as content:
            _place(out_fd, parts, content, entry, owner)
    except OSError as error:
        raise _refused(path, error) from error
    return path


def _place(out_fd: int, parts: Sequence[str], content: BinaryIO, entry: Entry, owner: tuple[int, int] | None) -> None:
    parent_fd = _make_directories(out_fd, parts[:-1], owner)
    temporary = f".dayfly-{os.getpid()}-{entry.sha256[:16]}"
    try:
        fd = os.open(temporary, _NEW, 0o600, dir_fd=parent_fd)
        try:
            _copy(content, fd, entry)
            if owner is not None:
                os.fchown(fd, *owner)
            os.fchmod(fd, entry.mode & 0o777)
            os.utime(fd, (entry.mtime, entry.mtime))
            os.rename(temporary, parts[-1], src_dir_fd=parent_fd, dst_dir_fd=parent_fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # the rename itself may have been what failed
                os.unlink(temporary, dir_fd=parent_fd)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(parent_fd)


def _make_directories(out_fd: int, parts: Sequence[str], owner: tuple[int, int] | None) -> int:
    """A descriptor of the directory `parts` below `out_fd`; links within it are followed, links out of it are not."""
    fd = os.dup(out_fd)
    for depth, part in enumerate(parts, 1):
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, 0o755, dir_fd=fd)
            if owner is not None:
                os.chown(part, *owner, dir_fd=fd, follow_symlinks=False)
        os.close(fd)
        fd = openat2(out_fd, "/".join(parts[:depth]), _DIRECTORY, 0, RESOLVE_BENEATH)
    return fd


def _copy(content: BinaryIO, fd: int, entry: Entry) -> None:
    digest = hashlib.sha256()
    while chunk := content.read(_CHUNK):
        digest.update(chunk)
        view = memoryview(chunk)
        while view:
            view = view[os.write(fd, view) :]
    if digest.hexdigest() != entry.sha256:
        raise StoreError(f"artifact {entry.path!r} is damaged in the store: its content is not {entry.sha256[:12]}")


def _together(failures: Sequence[StoreError], wanted: int) -> StoreError:
    if len(failures) == wanted == 1:
        return failures[0]
    told = "\n".join(f"  {each}" for each in failures)
    return StoreError(f"{len(failures)} of {wanted} artifacts were not delivered:\n{told}")


def _refused(path: Path, error: OSError) -> StoreError:
    if error.errno == errno.EXDEV:  # what RESOLVE_BENEATH of openat2(2) answers
        return StoreError(
            f"cannot write {path}: a link on the way leads outside the output directory",
            remedy="remove the link, or choose another directory with --out",
        )
    return StoreError(f"cannot write {path}: {error.strerror}", remedy="choose a directory you may write with --out")
