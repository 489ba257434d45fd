"""One blob of a file store: content under its own digest, written whole or not at all. Keepers import this: lean."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

_CHUNK = 1 << 20


class Shortened(Exception):  # noqa: N818 - a fact about the file, no fault of ours
    """The file holds less than its size said when the copy began."""


def blob_path(store: str, digest: str) -> str:
    return f"{store}/blobs/sha256/{digest[:2]}/{digest}"


def copy_into(store: str, fd: int, size_bytes: int, check_time: Callable[[], None]) -> str:
    """Copies `size_bytes` of `fd` to the blob that bears their digest; holes stay holes. Returns the digest."""
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
        try:
            start = min(os.lseek(fd, offset, os.SEEK_DATA), size_bytes)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size_bytes)
        except OSError as error:
            if error.errno != errno.ENXIO:  # no more content: the rest is one hole
                raise
            start = end = size_bytes
        if start > offset:
            yield start - offset
        os.lseek(fd, start, os.SEEK_SET)
        offset = start
        while offset < end:
            part = os.read(fd, min(_CHUNK, end - offset))
            if not part:
                raise Shortened
            offset += len(part)
            yield part


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
