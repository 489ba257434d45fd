"""One blob of a file store: content under its own digest, written whole or not at all. Keepers import this: lean."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

_CHUNK = 1 << 20


class Unreadable(Exception):  # noqa: N818 - a fact about the file, no fault of the store's
    """The file cannot be read to the end that its size said when the copy began; the text says why."""


def blob_path(store: str, digest: str) -> str:
    return f"{store}/blobs/sha256/{digest[:2]}/{digest}"


def copy_into(store: str, fd: int, size_bytes: int, check_time: Callable[[], None]) -> str:
    """Copies `size_bytes` of `fd` to the blob that bears their digest; holes stay holes. Returns the digest.

    Raises Unreadable for the file and OSError for the store. `check_time` is called often, and may raise to end it.
    """
    import hashlib

    temporary = f"{store}/blobs/tmp-{os.getpid()}-{time.monotonic_ns()}"
    digest = hashlib.sha256()
    target = _create(temporary)
    try:
        for part in _parts(fd, size_bytes):
            check_time()
            if isinstance(part, int):
                _skip_hole(target, part, digest, check_time)
            else:
                digest.update(part)
                _write_all(target, part)
        os.ftruncate(target, size_bytes)
        name = digest.hexdigest()
        _rename(temporary, blob_path(store, name))
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(target)
    return name


def _parts(fd: int, size_bytes: int) -> Iterator[bytes | int]:
    """The content as bytes, and the length of each hole as a number; exactly `size_bytes` in all."""
    offset = 0
    while offset < size_bytes:
        start, end = (min(place, size_bytes) for place in _next_data(fd, offset, size_bytes))
        if start > offset:
            yield start - offset
        offset = start
        while offset < end:
            part = _read(fd, min(_CHUNK, end - offset), offset)
            offset += len(part)
            yield part


def _next_data(fd: int, offset: int, size_bytes: int) -> tuple[int, int]:
    """Where the next content begins and ends; both at the end when the rest is one hole."""
    try:
        start = os.lseek(fd, offset, os.SEEK_DATA)
        return start, os.lseek(fd, start, os.SEEK_HOLE)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise Unreadable(f"it cannot be read: {error.strerror}") from error
        return size_bytes, size_bytes


def _read(fd: int, length: int, offset: int) -> bytes:
    try:
        part = os.pread(fd, length, offset)
    except OSError as error:
        raise Unreadable(f"it cannot be read: {error.strerror}") from error
    if not part:
        raise Unreadable("it became shorter while it was read")
    return part


def _skip_hole(target: int, length: int, digest: Any, check_time: Callable[[], None]) -> None:
    os.lseek(target, length, os.SEEK_CUR)
    zeros = bytes(min(length, _CHUNK))
    while length:
        check_time()
        digest.update(zeros[:length])
        length -= min(length, len(zeros))


def _create(path: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, 0o600)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        return os.open(path, flags, 0o600)


def _rename(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)
        os.rename(source, target)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
