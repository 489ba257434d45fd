"""Bytes of an archive on their way in: read, hashed, decompressed, counted, and handed to tarfile block by block.

    Packed    the file as it lies on disk: its sha256 (an OCI layer's digest), progress
    Unpacked  gzip, bzip2, xz, zstd or nothing, told apart by their first bytes, as Docker does
    Archive   the forward-only file that tarfile reads

Nothing is ever read whole, and no decompressor runs outside this process (CVE-2026-41567: a helper found on the
image's own path).
"""

import bz2
import hashlib
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import Budget

CHUNK_BYTES = 1 << 20
_PACKED_CHUNK_BYTES = 128 << 10
_MAGIC_BYTES = 6  # the longest of the four beginnings, xz's
_XZ_MEMORY_BYTES = 256 << 20  # `xz -9` needs 65 MiB; a hostile header may ask for gigabytes

ProgressCallback = Callable[[int, int | None, str], None]


class Progress:
    """Adds up what has been read and tells the callback: bytes done, bytes in all if known, and what is being read."""

    def __init__(self, callback: ProgressCallback | None, total: int | None) -> None:
        self._callback = callback
        self._total = total
        self._done = 0
        self.what = ""

    def add(self, count: int) -> None:
        self._done += count
        if self._callback is not None:
            self._callback(self._done, self._total, self.what)


class Stream(Protocol):
    """Unpacked bytes; `packed_bytes` is how many packed ones they came from so far."""

    @property
    def packed_bytes(self) -> int: ...

    def read(self) -> bytes:
        """The next piece, empty at the end."""
        ...


class Packed:
    """A file read from start to end, hashed on the way."""

    def __init__(self, file: BinaryIO, progress: Progress) -> None:
        self._file = file
        self._progress = progress
        self._hash = hashlib.sha256()
        self.count = 0

    def read(self) -> bytes:
        chunk = self._file.read(_PACKED_CHUNK_BYTES)
        self._hash.update(chunk)
        self.count += len(chunk)
        self._progress.add(len(chunk))
        return chunk

    @property
    def digest(self) -> str:
        return "sha256:" + self._hash.hexdigest()


class _Decoder(Protocol):
    """What bz2, lzma and zstd decompressors have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor in the shape of the other three; one member of a gzip file."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)


def _xz() -> _Decoder:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


def _zstd() -> _Decoder:
    # Imported when first needed: most imports are gzip.
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.ZstdDecompressor()


_SKIPPABLE_ZSTD = tuple(bytes((0x50 + n, 0x2A, 0x4D, 0x18)) for n in range(16))


def _format_of(start: bytes) -> tuple[str, Callable[[], _Decoder]] | None:
    if start.startswith(b"\x1f\x8b"):
        return "gzip", _Gzip
    if start.startswith(b"BZh"):
        return "bzip2", bz2.BZ2Decompressor
    if start.startswith(b"\xfd7zXZ\0"):
        return "xz", _xz
    if start.startswith((b"\x28\xb5\x2f\xfd", *_SKIPPABLE_ZSTD)):
        return "zstd", _zstd
    return None


class Unpacked:
    """The unpacked bytes of a Packed, whatever it was packed with; several members or frames in a row are one."""

    def __init__(self, packed: Packed, source: str) -> None:
        self._packed = packed
        self._source = source
        self._start = packed.read()
        found = _format_of(self._start)
        self._name = found[0] if found else "tar"
        self._make = found[1] if found else None
        self._decoder = self._make() if self._make else None

    @property
    def packed_bytes(self) -> int:
        return self._packed.count

    def read(self) -> bytes:
        if self._decoder is None:
            return self._take()
        while True:
            if self._decoder.eof and not self._begin_next():
                return b""
            piece = self._decode(self._take() if self._decoder.needs_input else b"")
            if piece:
                return piece

    def _take(self) -> bytes:
        start, self._start = self._start, b""
        return start or self._packed.read()

    def _begin_next(self) -> bool:
        """Go on with the next member; zeros that pad the file to a block are passed over, anything else is refused."""
        assert self._decoder is not None  # for mypy: only a packed stream has an end
        assert self._make is not None
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest and (more := self._take()):
            rest = more.lstrip(b"\0")
        if not rest:
            return False
        if len(rest) < _MAGIC_BYTES:
            rest += self._take()
        if _format_of(rest) is None:
            raise ImageError(f"{self._source}: there are other bytes behind its {self._name} stream")
        self._decoder, self._start = self._make(), rest
        return True

    def _decode(self, packed: bytes) -> bytes:
        assert self._decoder is not None  # for mypy
        if not packed and self._decoder.needs_input:
            raise ImageError(f"{self._source}: its {self._name} stream ends early", "is the file complete?")
        try:
            return self._decoder.decompress(packed, CHUNK_BYTES)
        except Exception as error:
            if not _is_damage(error):
                raise
            raise ImageError(f"{self._source}: its {self._name} stream is damaged: {error}") from error


def _is_damage(error: Exception) -> bool:
    """The four decompressors complain in four ways; zstd's class is not imported just to be named."""
    return isinstance(error, (zlib.error, lzma.LZMAError, OSError, EOFError)) or type(error).__name__ == "ZstdError"


class Archive:
    """A file object for tarfile that goes forward only and bounds what one header may read.

    tarfile reads a pax header of any claimed size at once, and sparse maps without end: `begin_header` allows
    `ImportLimits.header_bytes` until the next call. The content of a file is taken with `pieces`, which is not bound.
    """

    def __init__(self, stream: Stream, budget: Budget, source: str) -> None:
        self._stream = stream
        self._budget = budget
        self._source = source
        self._buffer = b""
        self._at = 0  # next unread byte of the buffer
        self._base = 0  # position in the archive of the buffer's first byte
        self._header_left = 0
        self.last_block = b""

    def begin_header(self) -> None:
        self._header_left = self._budget.limits.header_bytes

    def tell(self) -> int:
        return self._base + self._at

    def seek(self, position: int, whence: int = 0) -> int:
        if whence != 0 or position < self.tell():
            raise ImageError(f"{self._source}: an entry of the archive has an impossible size")
        left = position - self.tell()
        while left:
            left -= len(self.take(left))
        return position

    def read(self, size: int = -1) -> bytes:
        """Read a header's bytes; fewer than asked for only at the end of the archive."""
        if not 0 <= size <= self._header_left:
            raise ImageError(
                f"{self._source}: the header of an entry takes more than {self._budget.limits.header_bytes} bytes"
            )
        self._header_left -= size
        parts = []
        while size and (self._at < len(self._buffer) or self._refill()):
            parts.append(self._cut(size))
            size -= len(parts[-1])
        self.last_block = b"".join(parts)
        return self.last_block

    def take(self, size: int) -> bytes:
        """At least one and at most `size` bytes of content; raises ImageError at the end of the archive."""
        if self._at >= len(self._buffer) and not self._refill():
            raise ImageError(f"{self._source}: the archive ends in the middle of a file", "is the file complete?")
        return self._cut(size)

    def drain(self) -> None:
        """Read what follows the last entry: padding, which is part of the digest."""
        self._at = len(self._buffer)
        while self._refill():
            self._at = len(self._buffer)

    def _cut(self, size: int) -> bytes:
        piece = self._buffer[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def _refill(self) -> bool:
        self._base += len(self._buffer)
        self._at = 0
        self._buffer = self._stream.read()
        if self._buffer:
            count = len(self._buffer)
            self._budget.take_bytes(count, self._stream.packed_bytes, self._base + count)
        return bool(self._buffer)
