"""The files of an image that lies in a directory, or in an archive of such a directory."""

import io
import os
import re
import stat
import tarfile
from types import TracebackType
from typing import BinaryIO, Protocol, Self, cast

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import Budget, ImportLimits
from dayfly.runtime.images.streams import Archive, Packed, Progress, Stream, Unpacked
from dayfly.runtime.images.unpack import entries

_MOST_LINKS = 8
_HEX = "[0-9a-f]{64}"
_OF_LAYERS = re.compile(rf"(\./)?(blobs(/.*)?|oci-layout|index\.json|manifest\.json|repositories|{_HEX}([/.].*)?)")
_PACKED_START = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class ImageFiles(Protocol):
    """Files by their path."""

    @property
    def where(self) -> str:
        """What names them in errors."""
        ...

    def has(self, name: str) -> bool: ...

    def open(self, name: str, size: int | None = None) -> BinaryIO:
        """A file of `size` bytes, if that is said. Raises ImageError."""
        ...

    def size(self, name: str) -> int:
        """Raises ImageError."""
        ...


class DirectoryFiles:
    """Those below a directory. Links are followed (Bazel's layouts are made of them): digests decide."""

    def __init__(self, path: str) -> None:
        self.where = path

    def has(self, name: str) -> bool:
        return os.path.isfile(f"{self.where}/{name}")

    def open(self, name: str, size: int | None = None) -> BinaryIO:
        path = f"{self.where}/{name}"
        try:
            file = open_regular(path)
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror}", "is the image complete?") from error
        if size is not None and os.fstat(file.fileno()).st_size != size:
            file.close()
            raise ImageError(f"{path}: not a file of {size} bytes")
        return file

    def size(self, name: str) -> int:
        with self.open(name) as file:
            return os.fstat(file.fileno()).st_size


class ArchiveFiles:
    """Those in a tar archive; a context manager. One that is packed is unpacked to `scratch` first.

    Raises ImageError when it cannot be read or holds more than the limits allow.
    """

    def __init__(self, path: str, scratch: str, limits: ImportLimits) -> None:
        self.where = path
        self._scratch = scratch
        self._limits = limits
        self._places: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._file = open_regular(self.where)
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def has(self, name: str) -> bool:
        return self._real(name) in self._places

    def open(self, name: str, size: int | None = None) -> BinaryIO:
        offset, found = self._place(name)
        if size is not None and found != size:
            raise ImageError(f"{self.where}: {name[:200]!r} has {found} bytes, not {size}", "is the archive complete?")
        return cast("BinaryIO", _Part(self._file.fileno(), offset, found))

    def size(self, name: str) -> int:
        return self._place(name)[1]

    def _place(self, name: str) -> tuple[int, int]:
        place = self._places.get(self._real(name))
        if place is None:
            raise ImageError(f"{self.where}: there is no file {name[:200]!r} in it", "is the archive complete?")
        return place

    def _index(self) -> None:
        is_packed = self._file.read(8).startswith(_PACKED_START)
        self._file.seek(0)
        budget = Budget(self._limits, self.where)
        stream: Stream = Unpacked(Packed(self._file, Progress(None, None)), self.where)
        if not is_packed:
            self._read_entries(Archive(stream, budget, self.where), budget)
            return
        with open(self._scratch, "w+b", buffering=0) as copy:
            self._read_entries(Archive(_Copied(stream, copy), budget, self.where), budget)
            self._file.close()
            self._file = open(os.dup(copy.fileno()), "rb", buffering=0)  # noqa: SIM115 - closed by __exit__
        os.unlink(self._scratch)

    def _read_entries(self, archive: Archive, budget: Budget) -> None:
        for entry in entries(archive, self.where):
            name = os.path.normpath(entry.name)
            budget.take_entry(name.count("/") + 1)
            if entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                self._places[name] = (entry.offset_data, entry.size)
            elif entry.issym():
                self._links[name] = os.path.normpath(os.path.join(os.path.dirname(name), entry.linkname))
            elif entry.islnk():
                self._links[name] = os.path.normpath(entry.linkname)
        archive.drain()

    def _real(self, name: str) -> str:
        name = os.path.normpath(name)
        for _ in range(_MOST_LINKS):
            if name in self._places or name not in self._links:
                break
            name = self._links[name]
        return name


class _Part(io.RawIOBase):
    """A part of a file, which stays open as long as the archive does."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._at = offset
        self._end = offset + size

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        left = self._end - self._at
        piece = os.pread(self._fd, left if count < 0 else min(count, left), self._at)
        self._at += len(piece)
        return piece


class _Copied:
    """A stream that writes down what it gives."""

    def __init__(self, stream: Stream, copy: BinaryIO) -> None:
        self._stream = stream
        self._copy = copy

    @property
    def packed_bytes(self) -> int:
        return self._stream.packed_bytes

    def read(self) -> bytes:
        piece = self._stream.read()
        rest = memoryview(piece)
        while rest:
            rest = rest[self._copy.write(rest) :]
        return piece


def is_of_layers(file: BinaryIO) -> bool:
    """Whether a tarball is one of an image's layers, as `docker save` writes it, and not one of a root: its first name
    tells."""
    first = first_name(file)
    return first is not None and _OF_LAYERS.fullmatch(first) is not None


def first_name(file: BinaryIO) -> str | None:
    """The name of the first entry of a tarball, plain or packed; None for what is no tarball, or an empty one."""
    try:
        budget = Budget(ImportLimits(), "a file")
        archive = Archive(Unpacked(Packed(file, Progress(None, None)), "a file"), budget, "a file")
        return next((entry.name for entry in entries(archive, "a file")), None)
    except ImageError:
        return None


def open_regular(path: str) -> BinaryIO:
    """Open a regular file; whatever else it is waits for nobody. Raises ImageError, OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"cannot read {path}: it is neither a directory nor a regular file")
    return open(fd, "rb", buffering=0)
