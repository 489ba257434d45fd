"""Unpack one layer's archive into a directory in overlay's form. The archive is hostile input.

tarfile only parses. Every name goes through `places`, so nothing is ever written outside the layer, whatever `..`,
absolute names, symlinks or hard links say; every write is relative to a directory descriptor. An entry replaces what
an earlier one put at its name; only a directory over a directory stays. What is not unpacked (devices, sockets,
attributes that speak to overlay) is counted and told.

Whiteouts (OCI image-spec, layer.md) speak of the layers below only, in whatever order they come: `.wh.x` becomes
overlay's 0:0 device if there is an `x` to hide, an opaque mark where this layer has an `x` of its own.
"""

import errno
import os
import shutil
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.attributes import Attributes
from dayfly.runtime.images.below import Below, Path, is_whiteout, open_directory
from dayfly.runtime.images.budget import Budget
from dayfly.runtime.images.owners import made_by_root, on_disk
from dayfly.runtime.images.places import Places, clean, set_opaque
from dayfly.runtime.images.streams import CHUNK_BYTES, Archive

_MARK = b".wh."
_RESERVED = b".wh..wh."
_OPAQUE_MARK = b".wh..wh..opq"
_WHITEOUT_MODE = stat.S_IFCHR


@dataclass(frozen=True, slots=True)
class Contents:
    """What a layer holds, and what was left out of it."""

    entries: int
    size_bytes: int
    top_names: frozenset[str]
    warnings: tuple[str, ...]


def unpack(archive: Archive, root_fd: int, below: Below, budget: Budget, source: str) -> Contents:
    """Unpack the whole archive into the empty directory `root_fd`; `source` names it in errors. Raises ImageError."""
    with made_by_root():
        return _unpack(archive, _Layer(root_fd, below, budget, source), source)


def _unpack(archive: Archive, layer: "_Layer", source: str) -> Contents:
    try:
        for entry in entries(archive, source):
            layer.add(entry, archive)
        archive.drain()
        return layer.finish()
    except OSError as error:
        where = f" {error.filename!r}" if error.filename else ""
        raise ImageError(f"cannot unpack {source}: {error.strerror or error}{where}", _remedy(error)) from error
    except ValueError as error:  # a NUL in a link's target or in an attribute's name, which no system call takes
        raise ImageError(f"cannot unpack {source}: {error}") from error
    finally:
        layer.close()


def entries(archive: Archive, source: str) -> Iterator[tarfile.TarInfo]:
    """The entries of an archive, one after the other; what is not taken of a file is passed over. Raises ImageError."""
    try:
        archive.begin_header()
        tar = tarfile.TarFile(fileobj=archive, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]  # it reads, seeks and tells, and needs no more
        while (entry := tar.next()) is not None:
            yield entry
            tar.members = []  # type: ignore[attr-defined]  # else tarfile keeps every entry of a million
            archive.begin_header()
    except (tarfile.TarError, ValueError, OverflowError, IndexError) as error:
        raise ImageError(f"{source}: not a tar archive, or a damaged one: {error}") from error
    if archive.last_block.strip(b"\0"):
        raise ImageError(f"{source}: the archive has a damaged header near byte {archive.tell()}")


def _remedy(error: OSError) -> str | None:
    return "free some space on the disk of DAYFLY_HOME" if error.errno == errno.ENOSPC else None


class _Layer:
    """The layer while it grows."""

    def __init__(self, root_fd: int, below: Below, budget: Budget, source: str) -> None:
        self._root = root_fd
        self._below = below
        self._budget = budget
        self._source = source
        self._times: dict[Path, int] = {}
        self._places = Places(root_fd, below, self._times, source)
        self._left_out: Counter[str] = Counter()
        self._entries = 0
        self._size = 0
        self._hides_all = False
        root = below.find(())
        attributes = Attributes.of(root.fd, root.path, root.stat) if root else Attributes()
        attributes.apply(root_fd)
        self._times[()] = attributes.mtime_ns

    def add(self, entry: tarfile.TarInfo, archive: Archive) -> None:
        name = entry.name.encode("utf-8", "surrogateescape")
        parts = clean(name, self._source)
        self._budget.take_entry(len(parts))
        self._entries += 1
        self._places.begin()
        if not parts:
            self._add_root(entry)
        elif any(part.startswith(_MARK) for part in parts):
            self._add_mark(parts)
        elif kind := _KINDS.get(entry.type):
            parent, path = self._places.directory(parts[:-1])
            kind(self, entry, archive, parent, (*path, parts[-1]))
        elif entry.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            self._left_out["device nodes"] += 1
        else:
            self._left_out[f"entries of the unknown type {entry.type!r}"] += 1

    def finish(self) -> Contents:
        """Hide what the root's opaque mark says, and set the times of directories, which every new entry moved."""
        if self._hides_all:
            for name in self._below.top_names():
                self._hide(self._root, (name,))
        for path, mtime_ns in self._times.items():
            self._set_time(path, mtime_ns)
        warnings = tuple(f"left out {count} {what}" for what, count in sorted(self._left_out.items()))
        return Contents(self._entries, self._size, frozenset(os.listdir(self._root)), warnings)

    def close(self) -> None:
        self._places.close()

    def _attributes(self, entry: tarfile.TarInfo) -> Attributes:
        attributes, left_out = Attributes.of_entry(entry)
        self._left_out.update(left_out)
        return attributes

    def _add_root(self, entry: tarfile.TarInfo) -> None:
        if not entry.isdir():
            raise ImageError(f"{self._source}: its root is not a directory but an entry of type {entry.type!r}")
        attributes = self._attributes(entry)
        attributes.apply(self._root)
        self._times[()] = attributes.mtime_ns

    def _add_directory(self, entry: tarfile.TarInfo, archive: Archive, parent: int, path: Path) -> None:
        try:
            os.mkdir(path[-1], 0o700, dir_fd=parent)
        except FileExistsError:
            self._replace_by_directory(parent, path)
        fd = open_directory(parent, path[-1])
        try:
            attributes = self._attributes(entry)
            attributes.apply(fd)
        finally:
            os.close(fd)
        self._times[path] = attributes.mtime_ns

    def _replace_by_directory(self, parent: int, path: Path) -> None:
        """A file, or the mark of a removal, becomes a directory: a new one, which hides any below."""
        if stat.S_ISDIR(os.lstat(path[-1], dir_fd=parent).st_mode):
            return
        self._remove(parent, path)
        os.mkdir(path[-1], 0o700, dir_fd=parent)
        if self._has_directory_below(path):
            set_opaque(parent, path[-1])

    def _add_file(self, entry: tarfile.TarInfo, archive: Archive, parent: int, path: Path) -> None:
        self._budget.take_claim(entry.size)
        fd = self._create(parent, path)
        try:
            sparse = getattr(entry, "sparse", None)
            for offset, length in [(0, entry.size)] if sparse is None else sparse:
                self._write(fd, archive, offset, length)
            if sparse is not None:
                os.ftruncate(fd, entry.size)
            self._attributes(entry).apply(fd)
        finally:
            os.close(fd)

    def _write(self, fd: int, archive: Archive, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._budget.limits.bytes:
            raise ImageError(f"{self._source}: a file has an impossible size or map of holes")
        if offset:
            os.lseek(fd, offset, os.SEEK_SET)
        self._size += length
        while length:
            piece = archive.take(min(length, CHUNK_BYTES))
            _write_all(fd, piece)
            length -= len(piece)

    def _create(self, parent: int, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(path[-1], flags, 0o600, dir_fd=parent)
        except FileExistsError:
            self._remove(parent, path)
            return os.open(path[-1], flags, 0o600, dir_fd=parent)

    def _add_symlink(self, entry: tarfile.TarInfo, archive: Archive, parent: int, path: Path) -> None:
        self._remove(parent, path)
        os.symlink(entry.linkname.encode("utf-8", "surrogateescape"), path[-1], dir_fd=parent)
        self._attributes(entry).apply_to_link(path[-1], parent)

    def _add_fifo(self, entry: tarfile.TarInfo, archive: Archive, parent: int, path: Path) -> None:
        self._remove(parent, path)
        os.mkfifo(path[-1], 0o600, dir_fd=parent)
        attributes = self._attributes(entry)
        os.chown(path[-1], *on_disk(attributes.uid, attributes.gid), dir_fd=parent)
        os.chmod(path[-1], attributes.mode, dir_fd=parent)
        os.utime(path[-1], ns=(attributes.mtime_ns, attributes.mtime_ns), dir_fd=parent)

    def _add_hard_link(self, entry: tarfile.TarInfo, archive: Archive, parent: int, path: Path) -> None:
        target = clean(entry.linkname.encode("utf-8", "surrogateescape"), self._source)
        if not target:
            raise self._bad_link(path, target)
        directory, real = self._places.directory(target[:-1])
        real = (*real, target[-1])
        if real == path:
            return
        self._bring_up(directory, real, path)
        self._remove(parent, path)
        try:
            os.link(real[-1], path[-1], src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except (FileNotFoundError, PermissionError) as error:
            raise self._bad_link(path, real) from error

    def _bring_up(self, directory: int, real: Path, path: Path) -> None:
        """Copy a hard link's target into this layer if only the layers below have it: their inodes are not ours."""
        try:
            status = os.lstat(real[-1], dir_fd=directory)
        except FileNotFoundError:
            found = self._below.find(real)
        else:
            if stat.S_ISDIR(status.st_mode) or is_whiteout(status):
                raise self._bad_link(path, real)
            return
        if found is None or not (stat.S_ISREG(found.stat.st_mode) or stat.S_ISLNK(found.stat.st_mode)):
            raise self._bad_link(path, real)
        if stat.S_ISLNK(found.stat.st_mode):
            os.symlink(os.readlink(found.path, dir_fd=found.fd), real[-1], dir_fd=directory)
            times = (found.stat.st_mtime_ns, found.stat.st_mtime_ns)
            os.utime(real[-1], ns=times, dir_fd=directory, follow_symlinks=False)
            return
        source = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.fd)
        target = self._create(directory, real)
        with open(source, "rb") as reader, open(target, "wb") as writer:
            shutil.copyfileobj(reader, writer, CHUNK_BYTES)
            writer.flush()
            Attributes.of(found.fd, found.path, found.stat).apply(target)
        self._size += found.stat.st_size

    def _bad_link(self, path: Path, target: Path) -> ImageError:
        names = [os.fsdecode(b"/".join(parts)) for parts in (path, target)]
        return ImageError(f"{self._source}: {names[0]!r} is a hard link to {names[1]!r}, which is no file in the image")

    def _add_mark(self, parts: Path) -> None:
        if any(part.startswith(_RESERVED) for part in parts[:-1]):
            return  # aufs kept hard links of its own below /.wh..wh.plnk
        mark = parts[-1]
        if mark == _OPAQUE_MARK:
            self._make_opaque(parts[:-1])
        elif mark.startswith(_RESERVED):
            self._left_out["entries with names reserved by aufs"] += 1
        else:
            hidden = mark.removeprefix(_MARK)
            if any(part.startswith(_MARK) for part in parts[:-1]) or hidden in (b"", b".", b".."):
                raise ImageError(f"{self._source}: {os.fsdecode(b'/'.join(parts))!r} is a whiteout of nothing")
            parent, path = self._places.directory(parts[:-1])
            self._hide(parent, (*path, hidden))

    def _make_opaque(self, parts: Path) -> None:
        if not parts:
            self._hides_all = True
            return
        _, path = self._places.directory(parts)
        if path and self._has_directory_below(path):
            set_opaque(self._root, b"/".join(path))

    def _hide(self, parent: int, path: Path) -> None:
        """Hide what the layers below have at `path`, and leave what this one has there."""
        try:
            status = os.lstat(path[-1], dir_fd=parent)
        except FileNotFoundError:
            if self._below.find(path) is not None:
                os.mknod(path[-1], _WHITEOUT_MODE, os.makedev(0, 0), dir_fd=parent)
            elif not self._below:
                self._left_out["whiteouts (.wh.*) with no layer below"] += 1
            return
        if stat.S_ISDIR(status.st_mode) and self._has_directory_below(path):
            set_opaque(parent, path[-1])

    def _has_directory_below(self, path: Path) -> bool:
        found = self._below.find(path)
        return found is not None and found.is_directory

    def _remove(self, parent: int, path: Path) -> None:
        """Take away what an earlier entry put at `path`, if anything."""
        try:
            mode = os.lstat(path[-1], dir_fd=parent).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISDIR(mode):
            shutil.rmtree(path[-1], dir_fd=parent)
        else:
            os.unlink(path[-1], dir_fd=parent)
        if stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            self._places.forget()

    def _set_time(self, path: Path, mtime_ns: int) -> None:
        try:
            fd = open_directory(self._root, b"/".join(path) or b".")
        except OSError:  # a later entry put something else there
            return
        try:
            os.utime(fd, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(fd)


def _write_all(fd: int, piece: bytes) -> None:
    written = os.write(fd, piece)
    while written < len(piece):
        written += os.write(fd, memoryview(piece)[written:])


_KINDS = {
    tarfile.DIRTYPE: _Layer._add_directory,
    tarfile.REGTYPE: _Layer._add_file,
    tarfile.AREGTYPE: _Layer._add_file,
    tarfile.CONTTYPE: _Layer._add_file,
    tarfile.GNUTYPE_SPARSE: _Layer._add_file,
    tarfile.SYMTYPE: _Layer._add_symlink,
    tarfile.LNKTYPE: _Layer._add_hard_link,
    tarfile.FIFOTYPE: _Layer._add_fifo,
}
