"""A plain copy of a directory, for a source that cannot be mounted with mapped owners (overlayfs, NFS).

Directories, regular files and symbolic links, with their modes and times; the owner becomes the job's user, as the
mapping would have shown it. Nothing is followed, and the source may change while it is read.
"""

import os
import stat

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 1 << 24

Owner = tuple[int, int]  # uid, gid


def copy_tree(source_fd: int, target: str, owner: Owner, without: frozenset[str]) -> int:
    """Copy the directory `source_fd` into the one at `target`, but for the relative paths in `without`.

    Returns the number of files that could not be read. Raises OSError when the target cannot be written.
    """
    target_fd = os.open(target, _DIRECTORY)
    try:
        unread = _copy_below(source_fd, target_fd, "", owner, without)
        facts = os.fstat(source_fd)
        os.fchown(target_fd, *owner)
        os.fchmod(target_fd, stat.S_IMODE(facts.st_mode))
        os.utime(target_fd, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        return unread
    finally:
        os.close(target_fd)


def _copy_below(source: int, target: int, path: str, owner: Owner, without: frozenset[str]) -> int:
    unread = 0
    with os.scandir(source) as entries:
        for entry in entries:
            facts = entry.stat(follow_symlinks=False)
            if path + entry.name in without:
                continue
            if stat.S_ISDIR(facts.st_mode):
                unread += _copy_directory(source, target, path, entry.name, facts, owner, without)
            elif stat.S_ISREG(facts.st_mode):
                unread += _copy_file(source, target, entry.name, owner)
            elif stat.S_ISLNK(facts.st_mode):
                os.symlink(os.readlink(entry.name, dir_fd=source), entry.name, dir_fd=target)
                _own(target, entry.name, facts, owner)
    return unread


def _copy_directory(
    source: int, target: int, path: str, name: str, facts: os.stat_result, owner: Owner, without: frozenset[str]
) -> int:
    os.mkdir(name, 0o700, dir_fd=target)
    try:
        inner = os.open(name, _DIRECTORY, dir_fd=source)
    except OSError:  # it went, or became something else, since it was listed
        return 1
    below = os.open(name, _DIRECTORY, dir_fd=target)
    try:
        return _copy_below(inner, below, f"{path}{name}/", owner, without)
    finally:
        os.close(inner)
        os.close(below)
        os.chmod(name, stat.S_IMODE(facts.st_mode), dir_fd=target)
        _own(target, name, facts, owner)


def _copy_file(source: int, target: int, name: str, owner: Owner) -> int:
    try:
        reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    except OSError:
        return 1
    writer = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        facts = os.fstat(reader)
        while os.sendfile(writer, reader, None, _CHUNK):
            pass
        os.fchmod(writer, stat.S_IMODE(facts.st_mode))
    finally:
        os.close(reader)
        os.close(writer)
    _own(target, name, facts, owner)
    return 0


def _own(target: int, name: str, facts: os.stat_result, owner: Owner) -> None:
    os.chown(name, *owner, dir_fd=target, follow_symlinks=False)
    os.utime(name, ns=(facts.st_atime_ns, facts.st_mtime_ns), dir_fd=target, follow_symlinks=False)
