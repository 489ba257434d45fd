"""What a job is given beside its image: the directory below /workspace, and the operator's mounts.

To be applied in the stage, before the pivot. Targets are resolved inside the container's root (openat2(2),
RESOLVE_IN_ROOT), where nothing runs yet. init makes files as the job's root by then (capabilities.make_files_as).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.copytree import copy_tree
from dayfly.runtime.hosttree import NOT_MAPPED, attach_as_nobodys, attach_mapped
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.operations import Operation, Overlay
from dayfly.runtime.shape import ContainerPlan, Workspace
from dayfly.runtime.shape import Mount as MountRequest

_NAME_LOOKUP = ("/etc/resolv.conf", "/etc/hosts")  # an image's own say nothing of the host's network
_WORKSPACE = Overlay(("dir",), "disk/workspace/upper", "disk/workspace/work", "root/workspace")


def input_operations(
    first_id: int, namespaces: Namespaces, plan: ContainerPlan, uid: int, notes: list[str]
) -> list[Operation]:
    """The operations for one job whose user is `uid` inside. What its result should say is added to `notes`."""
    operations: list[Operation] = []
    if plan.workspace is not None:
        operations.append(GiveWorkspace(plan.workspace, first_id, uid, namespaces, notes))
    names = _NAME_LOOKUP if plan.shape.network == "host" else ()
    lookups = (MountRequest(source=os.path.realpath(path), target=path) for path in names if os.path.exists(path))
    requests = [*lookups, *plan.mounts]
    operations += [GiveMount(request, first_id, uid, namespaces, notes) for request in requests]
    return operations


@dataclass(frozen=True, slots=True)
class GiveWorkspace:
    """Show the job's directory at /workspace, its owner as the job's user, copy-on-write; checked to be the one meant.

    A file system that cannot be mounted with mapped owners (overlayfs, NFS: EINVAL) is copied instead, and a note says
    so.
    """

    workspace: Workspace
    first_id: int
    uid: int
    namespaces: Namespaces
    notes: list[str]

    def describe(self) -> str:
        return f"give the directory {self.workspace.source} to the job"

    def apply(self) -> None:
        fd = _open_source(self.workspace.source)
        try:
            self._check(os.fstat(fd))
            with _owner_mapping(fd, self.first_id, self.uid, self.namespaces) as mapping:
                is_mapped = attach_mapped(fd, "dir", syscalls.MOUNT_ATTR_RDONLY, mapping)
            if is_mapped:
                self._hide_ignored()
                _WORKSPACE.apply()
            else:
                self._copy(fd)
        finally:
            os.close(fd)

    def _check(self, facts: os.stat_result) -> None:
        expected = (self.workspace.device, self.workspace.inode)
        if None not in expected and expected != (facts.st_dev, facts.st_ino):
            raise HostError(
                "give the job its directory",
                self.workspace.source,
                reason="another directory has taken its place since the job was submitted",
                remedy="submit the job again",
            )

    def _hide_ignored(self) -> None:
        """Hide what .dayflyignore names: a whiteout (0:0 character device, overlayfs.rst) for each path."""
        for path in self.workspace.hidden:
            whiteout = f"{_WORKSPACE.upper}/{path}"
            os.makedirs(os.path.dirname(whiteout), 0o755, exist_ok=True)
            os.mknod(whiteout, stat.S_IFCHR, os.makedev(0, 0))

    def _copy(self, fd: int) -> None:
        """The upper is bound at /workspace already (rootfs.py), so a copy in it needs no overlay."""
        source = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            unread = copy_tree(source, _WORKSPACE.upper, self.first_id + self.uid, frozenset(self.workspace.hidden))
        finally:
            os.close(source)
        self.notes.append(
            f"the directory {self.workspace.source} was copied: {NOT_MAPPED}"
            + (f"; {unread} files could not be read" if unread else "")
        )


@dataclass(frozen=True, slots=True)
class GiveMount:
    """Show a host path that the operator allows at its target in the container.

    Where the owners cannot be mapped the job has what everybody has, and a note says so.
    """

    request: MountRequest
    first_id: int
    uid: int
    namespaces: Namespaces
    notes: list[str]

    def describe(self) -> str:
        return f"mount {self.request.source} at {self.request.target}"

    def apply(self) -> None:
        source = _open_source(self.request.source)
        is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = _open_target(self.request.target, is_directory)
        try:
            attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
            attributes |= 0 if self.request.writable else syscalls.MOUNT_ATTR_RDONLY
            with _owner_mapping(source, self.first_id, self.uid, self.namespaces) as mapping:
                is_mapped = attach_mapped(source, target, attributes, mapping)
            if not is_mapped:
                attach_as_nobodys(source, target, attributes)
                self.notes.append(f"{self.request.target} belongs to nobody in the job: {NOT_MAPPED}")
        finally:
            os.close(source)
            os.close(target)


def _open_source(path: str) -> int:
    """The agent has resolved the path and allowed what it found: a link put there since is not followed."""
    return syscalls.openat2(syscalls.AT_FDCWD, path, os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)


@contextmanager
def _owner_mapping(source: int, first_id: int, uid: int, namespaces: Namespaces) -> Iterator[int]:
    """The user namespace through which the owner of `source` is the job's user."""
    owner = os.fstat(source).st_uid
    if owner == 0 and uid == 0:
        yield namespaces.user
        return
    mapping = Namespaces.mapping(owner, first_id + uid, proc="root/proc")
    try:
        yield mapping.user
    finally:
        mapping.close()


def _open_target(target: str, is_directory: bool) -> int:
    """An O_PATH descriptor of `target` inside `root`, made when it is not there."""
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    try:
        parts = [part for part in target.split("/") if part]
        for count in range(1, len(parts) + 1):
            _ensure(root, "/".join(parts[:count]), is_directory or count < len(parts), resolve)
        return syscalls.openat2(root, target, os.O_PATH, resolve=resolve)
    finally:
        os.close(root)


def _ensure(root: int, path: str, is_directory: bool, resolve: int) -> None:
    try:
        os.close(syscalls.openat2(root, path, os.O_PATH, resolve=resolve))
    except FileNotFoundError:
        parent, _, name = path.rpartition("/")
        above = syscalls.openat2(root, parent or ".", os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        try:
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=above))
        finally:
            os.close(above)
