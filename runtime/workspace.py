"""What a job finds at /workspace: the directory that it is given, copy-on-write, or an empty one of its own.

Overlay shows the upper's top directory in place of the lower's, so the upper takes the lower's owner, mode and time,
and so does each directory that is made in it to hide something (overlayfs.rst). To be applied in the stage, as the
other inputs.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.copytree import copy_tree
from dayfly.runtime.hosttree import NOT_MAPPED, attach_owned, open_meant
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.ignore import IgnoreError, IgnoreRules, ignored
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.operations import Overlay
from dayfly.runtime.shape import Workspace
from dayfly.runtime.users import Identity
from dayfly.runtime.view import NOBODY, View, groups_in

_LOWER, _UPPER, _WORK = "dir", "disk/workspace/upper", "workspace/work"
_STEP = "give the job its directory"
_BENEATH = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS


def open_given(workspace: Workspace) -> int:
    """An O_PATH descriptor of the directory that the job was given, no link followed, checked to be the one meant.

    Raises OSError, HostError.
    """
    return open_meant(workspace.source, workspace.device, workspace.inode, _STEP)


def is_overlaid(disk_fd: int) -> bool:
    """Whether the directory lies below what the job wrote on this disk; else it was copied there, or there is none.

    overlay makes a directory of its own in its work directory.
    """
    fd = os.open(_WORK, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=disk_fd)
    try:
        return bool(os.listdir(fd))
    finally:
        os.close(fd)


@dataclass(frozen=True, slots=True)
class OwnWorkspace:
    """Give the empty /workspace to the job's user. It was made ahead, before that user was known."""

    ids: IdMap
    user: Identity

    def describe(self) -> str:
        return "give the empty /workspace to the job's user"

    def apply(self) -> None:
        os.chown(_UPPER, self.ids.first + self.user.uid, self.ids.first + self.user.gid)


@dataclass(frozen=True, slots=True)
class GiveWorkspace:
    """Show the job's directory at /workspace, its owner as the job's user, copy-on-write; checked to be the one meant.

    A file system that cannot be mounted with mapped owners (overlayfs, NFS: EINVAL) is copied instead, and a note says
    so.
    """

    workspace: Workspace
    ids: IdMap
    user: Identity
    namespaces: Namespaces
    notes: list[str]

    def describe(self) -> str:
        return f"give the directory {self.workspace.source} to the job"

    def apply(self) -> None:
        fd = open_given(self.workspace)
        try:
            groups = groups_in(os.fstat(fd), self.workspace.own_group, self.user.gid)
            read_only = syscalls.MOUNT_ATTR_RDONLY
            if attach_owned(fd, _LOWER, read_only, self.ids, self.user, self.namespaces, groups):
                self._overlay(fd)
            else:
                self._copy(fd)
        except IgnoreError as error:
            raise HostError(_STEP, self.workspace.source, reason=str(error), is_jobs_own=True) from error
        finally:
            os.close(fd)

    def _overlay(self, fd: int) -> None:
        parents = self._hide_ignored(fd) if self.workspace.is_live else set()
        for path in (".", *parents):
            self._take_after(path)
        overlay = Overlay((_LOWER,), _UPPER, f"disk/{_WORK}", "root/workspace", has_user_marks=not self.ids.is_mounted)
        overlay.apply()

    def _hide_ignored(self, fd: int) -> set[str]:
        """Hide what .dayflyignore names: a whiteout (0:0 character device, overlayfs.rst) for each path.

        Returns the directories that had to be made for them.
        """
        made: set[str] = set()
        with _opened(fd) as directory:
            for path in ignored(directory):
                parts = path.split("/")[:-1]
                for parent in ("/".join(parts[: count + 1]) for count in range(len(parts))):
                    if parent not in made:
                        os.mkdir(f"{_UPPER}/{parent}", 0o755)
                        made.add(parent)
                os.mknod(f"{_UPPER}/{path}", stat.S_IFCHR, os.makedev(0, 0))
        return made

    def _take_after(self, path: str) -> None:
        """Give a directory of the upper the owner, mode and time that the mapped lower shows of it.

        Its names are all there by now: each one more would move the time.
        """
        facts = _look_beneath(_LOWER, path)
        if facts is None:
            return
        os.chown(f"{_UPPER}/{path}", self._seen_as(facts.st_uid), self._seen_as(facts.st_gid))
        os.chmod(f"{_UPPER}/{path}", stat.S_IMODE(facts.st_mode))
        os.utime(f"{_UPPER}/{path}", ns=(facts.st_atime_ns, facts.st_mtime_ns))

    def _seen_as(self, owner: int) -> int:
        """An id as it comes out of the mapping, and nobody's where that has no place for it."""
        nobody = self.ids.first + min(NOBODY, self.ids.size - 1)
        return owner if 0 <= owner - self.ids.first < self.ids.size else nobody

    def _copy(self, fd: int) -> None:
        """The upper is bound at /workspace already (rootfs.py), so a copy in it needs no overlay."""
        owner = (self.ids.first + self.user.uid, self.ids.first + self.user.gid)
        with _opened(fd) as source:
            view = View.of(os.fstat(source), self.workspace.own_group) if self.ids.is_mounted else None
            rules = IgnoreRules.of(source) if self.workspace.is_live else IgnoreRules(())
            unread = copy_tree(source, _UPPER, owner, rules, view)
        self.notes.append(
            f"the directory {self.workspace.source} was copied: {NOT_MAPPED}"
            + (f"; {unread} files could not be read" if unread else "")
        )


@contextmanager
def _opened(given: int) -> Iterator[int]:
    """To be read: what was given is only a place (O_PATH)."""
    fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=given)
    try:
        yield fd
    finally:
        os.close(fd)


def _look_beneath(top: str, path: str) -> os.stat_result | None:
    """The facts of a directory below `top`; None when it went, or became something else, since it was listed."""
    above = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = syscalls.openat2(above, path, os.O_PATH | os.O_DIRECTORY, resolve=_BENEATH)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    finally:
        os.close(above)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
