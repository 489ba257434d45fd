"""A directory as a tar archive, written as it is read: the canonical form in which a directory becomes a layer.

Of a layer in overlay's form it is the archive that OCI has for it: whiteouts and opaque marks as `.wh.` files
(image-spec, layer.md).

Sorted by name, owners as numbers, times to the nanosecond, hard links and `user.*` attributes kept: the same tree gives
the same bytes, so its sha256 names it. It then goes the same way in as any other archive. Nothing is followed: no
symlink, no mount point (a chroot may have /proc mounted); devices and sockets are left out.
"""

import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.attributes import is_wanted
from dayfly.runtime.images.below import is_whiteout
from dayfly.runtime.images.owners import in_image, opaque_mark
from dayfly.runtime.images.streams import CHUNK_BYTES, Progress

_MARK, _OPAQUE_MARK = ".wh.", ".wh..wh..opq"
_BLOCK = 512
_END = bytes(2 * _BLOCK)


class TreeTar:
    """The archive of the directory open at `root_fd`; `path` names it in errors, `max_depth` bounds the descent.

    `is_layer`: it is one in overlay's form; `skip`: paths to leave out. `latest_second`: no time is later than that
    (Unix seconds), as SOURCE_DATE_EPOCH has it.
    """

    def __init__(
        self,
        root_fd: int,
        path: str,
        progress: Progress,
        max_depth: int,
        *,
        is_layer: bool = False,
        latest_second: int | None = None,
        skip: frozenset[str] = frozenset(),
    ) -> None:
        self._root = root_fd
        self._is_layer = is_layer
        self._skip = skip
        self._latest_ns = None if latest_second is None else latest_second * 10**9
        self._path = path
        self._max_depth = max_depth
        self._progress = progress
        self._device = os.fstat(root_fd).st_dev
        self._seen: dict[tuple[int, int], str] = {}
        self._pieces = self._all()
        self.left_out: Counter[str] = Counter()
        self.packed_bytes = 0

    def read(self) -> bytes:
        """The next piece of the archive, empty at the end. Headers are gathered, so that pieces are not tiny."""
        gathered = bytearray()
        for piece in self._pieces:
            gathered += piece
            if len(gathered) >= CHUNK_BYTES:
                break
        self.packed_bytes += len(gathered)
        self._progress.add(len(gathered))
        return bytes(gathered)

    def _all(self) -> Iterator[bytes]:
        yield self._header("./", os.fstat(self._root), self._root)
        yield from self._opened(self._root, "")
        yield _END

    def _opened(self, fd: int, prefix: str) -> Iterator[bytes]:
        if self._is_layer and opaque_mark() in os.listxattr(fd):
            yield _mark(prefix + _OPAQUE_MARK)
        yield from self._directory(fd, prefix)

    def _directory(self, fd: int, prefix: str) -> Iterator[bytes]:
        for name in sorted(os.listdir(fd), key=os.fsencode):
            status = os.lstat(name, dir_fd=fd)
            path = prefix + name
            if path in self._skip:
                continue
            if stat.S_ISDIR(status.st_mode):
                yield from self._subdirectory(fd, name, path)
            elif stat.S_ISREG(status.st_mode):
                yield from self._file(fd, name, path)
            elif stat.S_ISLNK(status.st_mode):
                yield self._header(path, status, None, os.readlink(name, dir_fd=fd))
            elif stat.S_ISFIFO(status.st_mode):
                yield self._header(path, status, None)
            elif self._is_layer and is_whiteout(status):
                yield _mark(prefix + _MARK + name)
            else:
                self.left_out["sockets" if stat.S_ISSOCK(status.st_mode) else "device nodes"] += 1

    def _subdirectory(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        if path.count("/") >= self._max_depth:
            raise ImageError(f"cannot import {self._path}: it is more than {self._max_depth} directories deep")
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(fd)
            yield self._header(path, status, fd)
            if status.st_dev == self._device:
                yield from self._opened(fd, path + "/")
            else:
                self.left_out["mount points' contents"] += 1
        finally:
            os.close(fd)

    def _file(self, parent: int, name: str, path: str) -> Iterator[bytes]:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        try:
            status = os.fstat(fd)
            first = self._seen.setdefault((status.st_dev, status.st_ino), path) if status.st_nlink > 1 else path
            if first != path:
                yield self._header(path, status, fd, first, tarfile.LNKTYPE)
                return
            yield self._header(path, status, fd)
            yield from self._content(fd, status.st_size, path)
            if os.fstat(fd).st_mtime_ns != status.st_mtime_ns:
                raise self._changed(path)
        finally:
            os.close(fd)

    def _content(self, fd: int, size: int, path: str) -> Iterator[bytes]:
        left = size
        while left:
            piece = os.read(fd, min(left, CHUNK_BYTES))
            if not piece:
                raise self._changed(path)
            left -= len(piece)
            yield piece
        yield bytes(-size % _BLOCK)

    def _changed(self, path: str) -> ImageError:
        return ImageError(f"cannot import {self._path}: {path!r} changed while it was read", "import it again")

    def _header(
        self, path: str, status: os.stat_result, fd: int | None, link: str = "", kind: bytes | None = None
    ) -> bytes:
        entry = tarfile.TarInfo(path)
        headers: dict[str, str] = {}
        entry.type = kind or _TYPES[stat.S_IFMT(status.st_mode)]
        entry.linkname = link
        entry.size = status.st_size if entry.type == tarfile.REGTYPE else 0
        entry.mode = stat.S_IMODE(status.st_mode)
        entry.uid, entry.gid = in_image(status)
        mtime_ns = status.st_mtime_ns if self._latest_ns is None else min(status.st_mtime_ns, self._latest_ns)
        seconds, nanoseconds = divmod(mtime_ns, 10**9)
        entry.mtime = seconds
        if seconds < 0:  # the header has no sign; the reader takes the fraction with the sign of the whole
            headers["mtime"] = f"-{-mtime_ns // 10**9}.{-mtime_ns % 10**9:09}"
        elif nanoseconds:
            headers["mtime"] = f"{seconds}.{nanoseconds:09}"
        if fd is not None and kind is None:
            headers |= self._attributes(fd)
        entry.pax_headers = headers
        return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")

    def _attributes(self, fd: int) -> dict[str, str]:
        names = sorted(name for name in os.listxattr(fd) if "=" not in name)
        values = [(name, os.getxattr(fd, name)) for name in names]
        return {f"SCHILY.xattr.{n}": v.decode("utf-8", "surrogateescape") for n, v in values if is_wanted(n, v)}


def _mark(path: str) -> bytes:
    """An empty file of root's that speaks of the layers below."""
    entry = tarfile.TarInfo(path)
    entry.mode = 0
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}
