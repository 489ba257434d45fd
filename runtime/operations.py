"""The small operations a container is made of: each says what it does (`describe`) and does it (`apply`).

A container's set-up is a list of them, so that `dayfly run --debug` prints the plan and a failure names its step.
Relative paths are below the stage (see `rootfs.py`), the directory that init stands in until it pivots.
"""

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from typing import Protocol

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls as sys
from dayfly.runtime.hosttree import NOT_MAPPED, attach_as_it_is, attach_as_nobodys, attach_mapped, open_source


class Operation(Protocol):
    """One step of a container's set-up."""

    def describe(self) -> str: ...

    def apply(self) -> None: ...


def perform(operations: Iterable[Operation], *, are_jobs_own: bool = False) -> None:
    """Apply each operation in order. Raises `HostError` naming the one that failed.

    `are_jobs_own`: they are of paths that the job states, below /workspace or its root, and on its own disk.
    """
    for operation in operations:
        try:
            operation.apply()
        except OSError as error:
            own, remedy = are_jobs_own and error.errno in _OF_PATHS, remedy_for(error)
            raise HostError(operation.describe(), error.filename, error.errno, remedy, is_jobs_own=own) from error


def remedy_for(error: OSError) -> str | None:
    """What a person can do about a failed system call, where the number alone tells."""
    return _REMEDIES.get(error.errno or 0)


# What a path may be that leads nowhere in an image, or is more than the job's disk has room for.
_OF_PATHS = frozenset(
    (
        *(errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.ENOSPC, errno.EDQUOT),
    )
)
_REMEDIES = {
    1: "run the worker as root, or see what `dayfly doctor` says this host lacks",
    19: "this kernel lacks the file system; see `dayfly doctor`",
    28: "the disk that holds DAYFLY_HOME is full; free space, or set DAYFLY_HOME elsewhere",
}


@dataclass(frozen=True, slots=True)
class Detach:
    """Stop mounts made here from reaching the host; the host's own unmounts still arrive, so none is pinned."""

    def describe(self) -> str:
        return "make every mount of the new namespace a slave of the host's"

    def apply(self) -> None:
        sys.mount(None, "/", None, sys.MS_REC | sys.MS_SLAVE)


@dataclass(frozen=True, slots=True)
class AttachDisk:
    """Attach the job's disk. Ids on it are those the job sees, so that a frozen upper fits any later range."""

    fd: int
    target: str
    user_namespace: int
    setuid_counts: bool = False
    is_mapped: bool = True

    def describe(self) -> str:
        return f"attach the job's disk at {self.target}"

    def apply(self) -> None:
        attributes = sys.MOUNT_ATTR_NODEV | (0 if self.setuid_counts else sys.MOUNT_ATTR_NOSUID)
        if self.is_mapped:
            self._map(attributes | sys.MOUNT_ATTR_IDMAP)
        else:
            sys.mount_setattr(self.fd, "", sys.AT_EMPTY_PATH, attributes)
        sys.move_mount(self.fd, "", sys.AT_FDCWD, self.target, sys.MOVE_MOUNT_F_EMPTY_PATH)

    def _map(self, attributes: int) -> None:
        try:
            sys.mount_setattr(self.fd, "", sys.AT_EMPTY_PATH, attributes, userns_fd=self.user_namespace)
        except OSError as error:
            remedy = "have DAYFLY_HOME on ext4, xfs or btrfs, not on overlayfs (a container's own root) or NFS"
            raise HostError("map the owners of the job's disk below DAYFLY_HOME", None, error.errno, remedy) from error


@dataclass(frozen=True, slots=True)
class MapTree:
    """Show a host tree at `target` with its owners mapped into the job's range, read-only.

    Where they cannot be mapped the job reads what everybody may read, and cannot change it. A note says so.
    """

    source: str
    target: str
    user_namespace: int
    notes: list[str]

    def describe(self) -> str:
        return f"map the owners of {self.source} into the job's id range"

    def apply(self) -> None:
        source = open_source(self.source)
        try:
            if not attach_mapped(source, self.target, sys.MOUNT_ATTR_RDONLY, self.user_namespace):
                attach_as_nobodys(source, self.target, sys.MOUNT_ATTR_RDONLY)
                self.notes.append(f"{self.source} belongs to nobody in the job and cannot be changed: {NOT_MAPPED}")
        finally:
            os.close(source)


@dataclass(frozen=True, slots=True)
class ShowTree:
    """Show a host tree at `target` as it is, read-only: its files have the job's ids on disk, or are nobody's.

    What is mounted below comes along, read-only as well.
    """

    source: str
    target: str

    def describe(self) -> str:
        return f"show {self.source}"

    def apply(self) -> None:
        source = open_source(self.source)
        try:
            attach_as_it_is(source, self.target, sys.MOUNT_ATTR_RDONLY)
        finally:
            os.close(source)


@dataclass(frozen=True, slots=True)
class Overlay:
    """Mount a copy-on-write view of `lower` (the top layer first) whose writes go to `upper`.

    `volatile` (overlayfs.rst): the job's fsync need not reach the disk, since nothing of it outlives a power cut.
    nosuid: setuid bits and file capabilities do not count. The job's no_new_privs says the same, but then the kernel
    refuses to execute a file whose capabilities the job may not have (EPERM, capabilities(7)); so it executes as usual.
    `userxattr`: overlay's marks are `user.overlay.*`, as `trusted.*` is host root's.
    """

    lower: tuple[str, ...]
    upper: str
    work: str
    target: str
    _: KW_ONLY
    setuid_counts: bool = False
    has_user_marks: bool = False

    def describe(self) -> str:
        return f"mount an overlay of {len(self.lower)} layers at {self.target}"

    def apply(self) -> None:
        layers = ":".join(self.lower)
        marks = ",userxattr" if self.has_user_marks else ""
        options = f"lowerdir={layers},upperdir={self.upper},workdir={self.work},volatile,xino=off{marks}"
        flags = sys.MS_NODEV if self.setuid_counts else sys.MS_NODEV | sys.MS_NOSUID
        sys.mount("overlay", self.target, "overlay", flags, options)


@dataclass(frozen=True, slots=True)
class Mount:
    """Mount a new file system."""

    kind: str
    target: str
    flags: int
    options: str | None = None

    def describe(self) -> str:
        return f"mount {self.kind} at {self.target}"

    def apply(self) -> None:
        sys.mount(self.kind, self.target, self.kind, self.flags, self.options)


@dataclass(frozen=True, slots=True)
class Bind:
    """Show `source` at `target` too."""

    source: str
    target: str

    def describe(self) -> str:
        return f"bind {self.source} to {self.target}"

    def apply(self) -> None:
        sys.mount(self.source, self.target, None, sys.MS_BIND)


@dataclass(frozen=True, slots=True)
class Move:
    """Move a mount, with those below it."""

    source: str
    target: str

    def describe(self) -> str:
        return f"move {self.source} to {self.target}"

    def apply(self) -> None:
        sys.mount(self.source, self.target, None, sys.MS_MOVE)


@dataclass(frozen=True, slots=True)
class MakeDirectory:
    """Make a directory."""

    path: str

    def describe(self) -> str:
        return f"make the directory {self.path}"

    def apply(self) -> None:
        os.mkdir(self.path, 0o755)


@dataclass(frozen=True, slots=True)
class Node:
    """Make a device's node, with the directories above it; unless `mode` says otherwise, for all in the container."""

    path: str
    major: int
    minor: int
    mode: int = stat.S_IFCHR | 0o666

    def describe(self) -> str:
        return f"make the device {self.path}"

    def apply(self) -> None:
        number = os.makedev(self.major, self.minor)
        try:
            os.mknod(self.path, self.mode, number)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self.path), 0o755)
            os.mknod(self.path, self.mode, number)


@dataclass(frozen=True, slots=True)
class Give:
    """Give a path to the job's user."""

    path: str
    uid: int
    gid: int

    def describe(self) -> str:
        return f"give {self.path} to the job's user"

    def apply(self) -> None:
        os.chown(self.path, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class HostDevice:
    """Show a character device of the host's own: only host root can make one that opens."""

    path: str
    source: str

    def describe(self) -> str:
        return f"show {self.source} at {self.path}"

    def apply(self) -> None:
        os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        sys.mount(self.source, self.path, None, sys.MS_BIND)


@dataclass(frozen=True, slots=True)
class Symlink:
    """Make a symbolic link."""

    path: str
    to: str

    def describe(self) -> str:
        return f"link {self.path} to {self.to}"

    def apply(self) -> None:
        os.symlink(self.to, self.path)


@dataclass(frozen=True, slots=True)
class Mask:
    """Hide a path of /proc or /sys: a file behind an empty device, a directory behind an empty read-only one.

    A path that this kernel does not have needs no mask.
    """

    path: str
    null: str
    empty: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def apply(self) -> None:
        with suppress(FileNotFoundError):
            try:
                sys.mount(self.null, self.path, None, sys.MS_BIND)
            except NotADirectoryError:
                sys.mount(self.empty, self.path, None, sys.MS_BIND)


@dataclass(frozen=True, slots=True)
class ReadOnly:
    """Make a path of /proc read-only, keeping the flags its mount has."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def apply(self) -> None:
        with suppress(FileNotFoundError):  # not every kernel has each of them
            sys.mount(self.path, self.path, None, sys.MS_BIND | sys.MS_REC)
            flags = sys.MS_NOSUID | sys.MS_NODEV | sys.MS_NOEXEC
            sys.mount(None, self.path, None, sys.MS_REMOUNT | sys.MS_BIND | sys.MS_RDONLY | flags)


@dataclass(frozen=True, slots=True)
class PivotRoot:
    """Make `root` the root, and let go of the host's tree (pivot_root(2), "." over ".")."""

    root: str

    def describe(self) -> str:
        return f"pivot into {self.root}"

    def apply(self) -> None:
        os.chdir(self.root)
        sys.pivot_root(".", ".")
        sys.umount2(".", sys.MNT_DETACH)
        os.chdir("/")
