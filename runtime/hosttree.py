"""A piece of the host's file tree shown in a container, its owners mapped into the job's id range.

Mapped mounts are mount_setattr(2)'s MOUNT_ATTR_IDMAP. overlayfs and NFS do not have them, nor has overlay on kernels
before 5.19: EINVAL. What then is the caller's to decide, and to say in the job's result.
"""

import errno
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.users import Identity

NOT_MAPPED = "its file system cannot be mounted with mapped owners"

_NOGROUP = 65534  # on disk, of what the job makes where it has nobody's group: no file of anybody's has it
_CLONE = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC


def open_source(path: str) -> int:
    """An O_PATH descriptor of what the agent has resolved and allowed: a link put there since is not followed."""
    return syscalls.openat2(syscalls.AT_FDCWD, path, os.O_PATH, resolve=syscalls.RESOLVE_NO_SYMLINKS)


def open_meant(path: str, device: int | None, inode: int | None, what: str) -> int:
    """The same, checked to be the very file that was looked at, where that is known. Raises OSError, HostError."""
    fd = open_source(path)
    facts = os.fstat(fd)
    if None in (device, inode) or (device, inode) == (facts.st_dev, facts.st_ino):
        return fd
    os.close(fd)
    reason = "something else has taken its place since the job was submitted"
    raise HostError(what, path, reason=reason, remedy="submit the job again", is_jobs_own=True)


@contextmanager
def owner_mapping(
    source: int, ids: IdMap, user: Identity, namespaces: Namespaces, groups: Mapping[int, int]
) -> Iterator[int]:
    """The user namespace through which the owner of `source` is the job's user.

    `groups`: each group on disk and what the job has in its place. What is not mapped the job may read as everybody
    may, and cannot change, not even its own files.
    """
    owner = os.fstat(source).st_uid
    if owner == 0 and user.uid == 0:
        yield namespaces.user
        return
    shifted = {disk_id: ids.first + gid for disk_id, gid in (groups or {_NOGROUP: user.gid}).items()}
    mapping = Namespaces.mapping({owner: ids.first + user.uid}, shifted, proc="root/proc")
    try:
        yield mapping.user
    finally:
        mapping.close()


def attach_mapped(source: str | int, target: str | int, attributes: int, user_namespace: int) -> bool:
    """Attach a copy of the mount at `source`, owners mapped through `user_namespace`; False where that cannot be.

    `source` and `target` are paths or O_PATH descriptors.
    """
    try:
        _attach(source, target, attributes | syscalls.MOUNT_ATTR_IDMAP, user_namespace)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def attach_as_nobodys(source: str | int, target: str | int, attributes: int) -> None:
    """Attach it unmapped: to the job everything there belongs to nobody, and it has what everybody has."""
    _attach(source, target, attributes, user_namespace=0)


def attach_as_it_is(source: str | int, target: str | int, attributes: int) -> None:
    """Attach it unmapped, with what is mounted below: a user namespace cannot leave that out (mount_namespaces(7))."""
    _attach(source, target, attributes, user_namespace=0, below=syscalls.AT_RECURSIVE)


def attach_owned(
    source: int,
    target: str | int,
    attributes: int,
    ids: IdMap,
    user: Identity,
    namespaces: Namespaces,
    groups: Mapping[int, int],
) -> bool:
    """Attach what `source` is, its owner as the job's user; False where that cannot be. `groups`: see above."""
    if not ids.is_mounted:
        return _attach_if_owned(source, target, attributes, ids.on_disk(user.uid))
    with owner_mapping(source, ids, user, namespaces, groups) as mapping:
        return attach_mapped(source, target, attributes, mapping)


def _attach_if_owned(source: int, target: str | int, attributes: int, owner: int) -> bool:
    """A worker whose only id is its user's: what is that user's is the job's as well, unmapped."""
    is_owned = os.fstat(source).st_uid == owner
    if is_owned:
        attach_as_it_is(source, target, attributes)
    return is_owned


def _attach(source: str | int, target: str | int, attributes: int, user_namespace: int, below: int = 0) -> None:
    flags = _CLONE | below
    if isinstance(source, int):
        tree = syscalls.open_tree(source, "", syscalls.AT_EMPTY_PATH | flags)
    else:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, source, flags)
    try:
        syscalls.mount_setattr(tree, "", syscalls.AT_EMPTY_PATH | below, attributes, userns_fd=user_namespace)
        if isinstance(target, int):
            empty = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
            syscalls.move_mount(tree, "", target, "", empty)
        else:
            syscalls.move_mount(tree, "", syscalls.AT_FDCWD, target, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)
