"""A plain copy of a directory, for a source that cannot be mounted with mapped owners (overlayfs, NFS).

Directories, regular files and symbolic links, with their modes and times; the owner becomes the job's user, as the
mapping would have shown it. What the mapping would not have let the job read (view.py) is left out. Nothing is
followed, nor entered what is mounted below, which the job would not see; and the source may change while it is read.
"""

import os
import stat
from dataclasses import dataclass

from dayfly.runtime.ignore import IgnoreRules
from dayfly.runtime.syscalls import RESOLVE_ONE_TREE, openat2
from dayfly.runtime.view import View

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24

Owner = tuple[int, int]  # uid, gid


def copy_tree(source_fd: int, target: str, owner: Owner, without: IgnoreRules, view: View | None) -> int:
    """Copy the directory `source_fd` into the one at `target`, but for what `without` leaves out.

    `view`: what the job may read of it; None: whatever the caller may. Returns the number of files and directories that
    could not be read. Raises OSError when the target cannot be written.
    """
    target_fd = os.open(target, _DIRECTORY)
    try:
        copy = _Copy(owner, without, view)
        copy.below(source_fd, target_fd, "")
        facts = os.fstat(source_fd)
        os.fchown(target_fd, *owner)
        os.fchmod(target_fd, stat.S_IMODE(facts.st_mode))
        os.utime(target_fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        return copy.unread
    finally:
        os.close(target_fd)


@dataclass
class _Copy:
    owner: Owner
    without: IgnoreRules
    view: View | None
    unread: int = 0

    def below(self, source: int, target: int, path: str) -> None:
        with os.scandir(source) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if self.without.matches(os.fsencode(path + entry.name), is_directory=stat.S_ISDIR(facts.st_mode)):
                    continue
                if stat.S_ISDIR(facts.st_mode):
                    self._directory(source, target, path, entry.name, facts)
                elif stat.S_ISREG(facts.st_mode):
                    self._file(source, target, entry.name)
                elif stat.S_ISLNK(facts.st_mode):
                    os.symlink(os.readlink(entry.name, dir_fd=source), entry.name, dir_fd=target)
                    _own(target, entry.name, facts, self.owner)

    def _directory(self, source: int, target: int, path: str, name: str, facts: os.stat_result) -> None:
        os.mkdir(name, 0o700, dir_fd=target)
        inner = self._open(source, name, _DIRECTORY)  # None: it went, or became something else, since it was listed
        if inner is None:
            return
        below = os.open(name, _DIRECTORY, dir_fd=target)
        try:
            self.below(inner, below, f"{path}{name}/")
        finally:
            os.close(inner)
            os.close(below)
            os.chmod(name, stat.S_IMODE(facts.st_mode), dir_fd=target)
            _own(target, name, facts, self.owner)

    def _file(self, source: int, target: int, name: str) -> None:
        reader = self._open(source, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if reader is None:
            return
        writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
        try:
            facts = os.fstat(reader)
            while os.sendfile(writer, reader, None, _CHUNK):
                pass
            os.fchmod(writer, stat.S_IMODE(facts.st_mode))
        finally:
            os.close(reader)
            os.close(writer)
        _own(target, name, facts, self.owner)

    def _open(self, source: int, name: str, flags: int) -> int | None:
        try:
            fd = openat2(source, name, flags, resolve=RESOLVE_ONE_TREE)
        except OSError:
            self.unread += 1
            return None
        if self.view is None or self.view.shows(fd):
            return fd
        os.close(fd)
        self.unread += 1
        return None


def _own(target: int, name: str, facts: os.stat_result, owner: Owner) -> None:
    os.chown(name, *owner, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=target, follow_symlinks=False)
