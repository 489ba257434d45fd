"""One freeze of a directory: walk it, name it, copy it. Others may be writing in it meanwhile.

The walk goes through directory descriptors, the copy opens each path without any symlink in it, so a directory that
turns into a symlink on the way leads nowhere. A file that changes while it is copied is copied again.
"""

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dayfly.jobs.errors import HostError
from dayfly.runtime.ignore import IgnoreRules
from dayfly.runtime.syscalls import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_ATTEMPTS = 3
_FICLONE = 0x40049409
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
# A file written twice within one tick of the clock keeps its times; what is that young is not trusted next time.
_YOUNG_NS = 2 * 10**9

Stamp = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a freeze saw: its tree, and of each file the stamp (inode, size, times, mode, owner) and then the sha256."""

    tree: str = ""
    files: Mapping[bytes, Stamp] = field(default_factory=dict)


@dataclass(slots=True)
class _Entry:
    """A thing found by the walk. `content` is a file's sha256 once known, or a link's target."""

    path: bytes
    status: os.stat_result
    content: str | bytes = ""


class Freezing:
    """The directory open at `source`; what `before` saw unchanged is not read. `skip` is never descended into."""

    def __init__(self, source: int, before: Seen, skip: os.stat_result) -> None:
        self._source = source
        self._before = before
        self._skip = (skip.st_dev, skip.st_ino)
        self._rules = IgnoreRules.of(source)
        self._began_ns = time.time_ns()
        self._entries = [_Entry(b"", os.fstat(source)), *self._walk(source, b"")]

    def digest_if_unchanged(self) -> str | None:
        """The digest, when no file has to be read for it."""
        for entry in self._entries:
            if stat.S_ISREG(entry.status.st_mode):
                stamp = self._before.files.get(entry.path)
                if stamp is None or stamp[:-1] != _stamp(entry.status):
                    return None
                entry.content = str(stamp[-1])
        return self._digest()

    def copy(self, tree: str) -> str:
        """Copy everything into the empty directory `tree`, and return the digest of the copy."""
        target = os.open(tree, _DIRECTORY)
        before = _open_if_there(self._before.tree)
        try:
            kept = [entry for entry in self._entries if self._copy_entry(entry, target, before)]
            self._entries = kept
            for entry in reversed(kept):  # times last and children first: each new name moves its directory's time
                if stat.S_ISDIR(entry.status.st_mode):
                    _finish_directory(target, entry)
        finally:
            os.close(target)
            if before is not None:
                os.close(before)
        return self._digest()

    def seen(self) -> Seen:
        """What is to be remembered for the next freeze."""
        old = self._began_ns - _YOUNG_NS
        files = {
            entry.path: (*_stamp(entry.status), str(entry.content))
            for entry in self._entries
            if stat.S_ISREG(entry.status.st_mode) and max(entry.status.st_ctime_ns, entry.status.st_mtime_ns) < old
        }
        return Seen(files=files)

    def _digest(self) -> str:
        whole = hashlib.sha256()
        for entry in sorted(self._entries, key=lambda entry: entry.path):
            whole.update(_described(entry))
        return "sha256:" + whole.hexdigest()

    def _walk(self, fd: int, prefix: bytes) -> Iterator[_Entry]:
        for name in sorted(os.fsencode(name) for name in os.listdir(fd)):
            path = prefix + name
            try:
                status = os.lstat(name, dir_fd=fd)
                is_directory = stat.S_ISDIR(status.st_mode)
                if self._rules and self._rules.matches(path, is_directory=is_directory):
                    continue
                if stat.S_ISREG(status.st_mode):
                    yield _Entry(path, status)
                elif stat.S_ISLNK(status.st_mode):
                    yield _Entry(path, status, os.readlink(name, dir_fd=fd))
                elif is_directory and (status.st_dev, status.st_ino) != self._skip:
                    yield from self._walk_into(fd, name, path)
            except FileNotFoundError:
                continue  # gone since it was listed

    def _walk_into(self, parent: int, name: bytes, path: bytes) -> Iterator[_Entry]:
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            yield _Entry(path, os.fstat(fd))
            yield from self._walk(fd, path + b"/")
        finally:
            os.close(fd)

    def _copy_entry(self, entry: _Entry, target: int, before: int | None) -> bool:
        """Make the entry in the copy; False when it is gone from the source."""
        mode = entry.status.st_mode
        if stat.S_ISDIR(mode):
            if entry.path:
                os.mkdir(entry.path, 0o700, dir_fd=target)
        elif stat.S_ISLNK(mode):
            os.symlink(entry.content, entry.path, dir_fd=target)
            os.chown(entry.path, entry.status.st_uid, entry.status.st_gid, dir_fd=target, follow_symlinks=False)
            times = (entry.status.st_mtime_ns, entry.status.st_mtime_ns)
            os.utime(entry.path, ns=times, dir_fd=target, follow_symlinks=False)
        elif not self._link_entry(entry, target, before):
            return self._copy_file(entry, target)
        return True

    def _link_entry(self, entry: _Entry, target: int, before: int | None) -> bool:
        stamp = self._before.files.get(entry.path)
        if before is None or stamp is None or stamp[:-1] != _stamp(entry.status):
            return False
        try:
            os.link(entry.path, entry.path, src_dir_fd=before, dst_dir_fd=target, follow_symlinks=False)
        except OSError:  # that bundle is being deleted, or the file has all the links it may have
            return False
        entry.content = str(stamp[-1])
        return True

    def _copy_file(self, entry: _Entry, target: int) -> bool:
        for _ in range(_ATTEMPTS):
            try:
                fd = openat2(self._source, entry.path, os.O_RDONLY | os.O_NONBLOCK, 0, _RESOLVE)
            except (FileNotFoundError, NotADirectoryError):
                return False
            try:
                entry.status = os.fstat(fd)
                if not stat.S_ISREG(entry.status.st_mode):
                    return False
                entry.content = _copy_content(fd, target, entry)
                if _stamp(os.fstat(fd)) == _stamp(entry.status):
                    return True
            finally:
                os.close(fd)
        raise HostError(
            "freeze the file",
            os.fsdecode(entry.path),
            reason=f"it changed each of the {_ATTEMPTS} times it was copied",
            remedy="stop what writes it, or name it in .dayflyignore",
        )


def _stamp(status: os.stat_result) -> Stamp:
    """What changes when a file does; the change time cannot be set back."""
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (status.st_ino, status.st_size, *times, status.st_mode, status.st_uid, status.st_gid)


def _described(entry: _Entry) -> bytes:
    """One record of the manifest. No field holds a NUL, and their number is fixed, so no two trees read alike."""
    status = entry.status
    is_file = stat.S_ISREG(status.st_mode)
    content = (status.st_size, status.st_mtime_ns) if is_file else (0, 0)
    numbers = (status.st_mode, status.st_uid, status.st_gid, *content)
    return b"\0".join((entry.path, *(b"%d" % number for number in numbers), os.fsencode(entry.content))) + b"\0"


def _copy_content(source: int, target: int, entry: _Entry) -> str:
    """Write the content of `source` with its attributes to the entry's place below `target`; returns its sha256."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    copy = os.open(entry.path, flags, 0o600, dir_fd=target)
    try:
        status = entry.status
        digest = _hashed(copy) if _clone(source, copy) else _copied(source, copy)
        os.fchown(copy, status.st_uid, status.st_gid)
        os.fchmod(copy, stat.S_IMODE(status.st_mode))
        os.utime(copy, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(copy)
    return digest


def _clone(source: int, copy: int) -> bool:
    """Share the blocks, where the file system can (btrfs, XFS)."""
    try:
        fcntl.ioctl(copy, _FICLONE, source)
    except OSError:
        return False
    return True


def _hashed(fd: int) -> str:
    with open(fd, "rb", closefd=False) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copied(source: int, copy: int) -> str:
    whole, size = hashlib.sha256(), 0
    while piece := os.read(source, _CHUNK):
        whole.update(piece)
        size += len(piece)
        if piece == _ZEROS[: len(piece)]:
            os.lseek(copy, len(piece), os.SEEK_CUR)  # a hole stays a hole
            continue
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(copy, rest) :]
    os.ftruncate(copy, size)
    return whole.hexdigest()


def _finish_directory(target: int, entry: _Entry) -> None:
    fd = os.open(entry.path or b".", _DIRECTORY, dir_fd=target)
    try:
        os.fchown(fd, entry.status.st_uid, entry.status.st_gid)
        os.fchmod(fd, stat.S_IMODE(entry.status.st_mode))
        os.utime(fd, ns=(entry.status.st_mtime_ns, entry.status.st_mtime_ns))
    finally:
        os.close(fd)


def _open_if_there(path: str) -> int | None:
    try:
        return os.open(path, _DIRECTORY)
    except OSError:
        return None
