"""A job's disk on a host that cannot limit one: a directory below DAYFLY_HOME, without a limit.

Used where there are no loop devices, no ext4 or no mke2fs, and only for jobs that state no `limits.disk`: one that
does is refused (worker/plan.py). It is attached as the other kind is (disk.py), as a detached mount with mapped owners.
But it has a name, `disks/TOKEN`, so what a SIGKILL leaves is the sweeper's to find.

The file system of DAYFLY_HOME must be mountable with mapped owners and take overlay's upper: ext4, xfs, btrfs, f2fs,
tmpfs from Linux 6.3 on. overlayfs (a container's own root) and NFS can do neither.
"""

import errno
import os
from contextlib import suppress

from dayfly.jobs.errors import HostError, Unsupported
from dayfly.runtime import syscalls
from dayfly.runtime.disk import open_disk
from dayfly.runtime.disk_template import LEAST_BYTES, Directory
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.removal import remove_tree

DIRECTORY = "disks"
UNLIMITED = "the job's disk was not limited: no loop devices, no ext4, no mke2fs, or not root; see `dayfly doctor`"

_MOUNTED = IdMap(0)
# Forbidden below DAYFLY_HOME perhaps, which is meant for the host: in the job they must work.
_CLEARED = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC


def why_unlimited(home: str, token: str) -> Unsupported | None:
    """Why this host cannot limit a job's disk; None when it can, which is tried by making the smallest."""
    try:
        open_disk(home, LEAST_BYTES, token).close()
    except Unsupported as error:
        return error
    return None


def open_directory_disk(
    home: str, token: str, layout: tuple[Directory, ...] = (), ids: IdMap = _MOUNTED
) -> "DirectoryDisk":
    """A fresh one with the directories of `layout`. Raises `HostError`."""
    path = os.path.join(home, DIRECTORY, token)
    try:
        os.makedirs(path, 0o700)
    except OSError as error:
        raise _failure(path, error) from error
    try:
        for directory in layout:
            target = os.path.join(path, directory.path)
            os.mkdir(target)
            owner = ids.on_disk(directory.owner)
            os.chown(target, owner, owner)
            os.chmod(target, directory.mode)
        return DirectoryDisk(path, _mount(path, ids), ids)
    except OSError as error:
        remove_tree(path)
        raise _failure(path, error) from error


class DirectoryDisk:
    """As `disk.Disk`, but nothing is counted: it ends where the host's disk does. How much of it is used is not known:
    the kernel keeps no count, and a walk would cost as much as the job wrote."""

    def __init__(self, path: str, mount_fd: int, ids: IdMap = _MOUNTED) -> None:
        self.path = path
        self.mount_fd = mount_fd
        self.number = None
        self._ids = ids
        self._is_kept = False

    def mount_again(self) -> int:
        """A second detached mount, with owners not mapped yet. Raises `HostError`."""
        try:
            return _mount(self.path, self._ids)
        except OSError as error:
            raise _failure(self.path, error) from error

    def look(self) -> None:
        """There is no quota to come near to."""

    def is_nearly_full(self) -> bool:
        """Never: there is no quota."""
        return False

    def keep(self, directory_fd: int, name: str) -> None:
        """Move the directory to where it outlives us. Raises OSError."""
        os.rename(self.path, name, dst_dir_fd=directory_fd)
        self._is_kept = True

    def discard(self) -> None:
        """Close and delete. Safe from any state and more than once."""
        self.close()
        if not self._is_kept:
            remove_tree(self.path)

    def close(self) -> None:
        if self.mount_fd >= 0:
            os.close(self.mount_fd)
            self.mount_fd = -1


def _failure(path: str, error: OSError) -> HostError:
    remedy = "free space on the disk that holds DAYFLY_HOME" if error.errno == errno.ENOSPC else "see `dayfly doctor`"
    return HostError("make a job's disk", path, error.errno, remedy)


def _mount(path: str, ids: IdMap) -> int:
    flags = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC
    fd = syscalls.open_tree(syscalls.AT_FDCWD, path, flags)
    try:
        syscalls.mount_setattr(fd, "", syscalls.AT_EMPTY_PATH, *_attributes(ids))
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise
    return fd


def _attributes(ids: IdMap) -> tuple[int, int]:
    """What to set and what to clear. What the host has set, a user namespace cannot clear (mount_namespaces(7))."""
    if not ids.is_mounted:
        return syscalls.MOUNT_ATTR_NODEV, 0
    # The atime setting is a field, not a flag: to set one, all of it is cleared (mount_setattr(2)).
    return syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOATIME, _CLEARED | syscalls.MOUNT_ATTR__ATIME
