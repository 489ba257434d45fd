"""A piece of the host's file tree shown in a container, its owners mapped into the job's id range.

Mapped mounts are mount_setattr(2)'s MOUNT_ATTR_IDMAP. overlayfs and NFS do not have them, nor has overlay on kernels
before 5.19: EINVAL. What then is the caller's to decide, and to say in the job's result.
"""

import errno
import os

from dayfly.runtime import syscalls

NOT_MAPPED = "its file system cannot be mounted with mapped owners"

_CLONE = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC


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


def _attach(source: str | int, target: str | int, attributes: int, user_namespace: int) -> None:
    if isinstance(source, int):
        tree = syscalls.open_tree(source, "", syscalls.AT_EMPTY_PATH | _CLONE)
    else:
        tree = syscalls.open_tree(syscalls.AT_FDCWD, source, _CLONE)
    try:
        syscalls.mount_setattr(tree, "", syscalls.AT_EMPTY_PATH, attributes, userns_fd=user_namespace)
        if isinstance(target, int):
            flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
            syscalls.move_mount(tree, "", target, "", flags)
        else:
            syscalls.move_mount(tree, "", syscalls.AT_FDCWD, target, syscalls.MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(tree)
