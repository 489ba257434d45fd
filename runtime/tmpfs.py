"""A file system in memory that a job is given: made detached, and put at its target in the stage, before the pivot.

What is written there counts as the job's memory (memory.rst, "tmpfs"), and goes with the job's mount namespace.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from dayfly.runtime import syscalls
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.targets import open_target

SOURCE = "tmpfs"
"""What a mount has for its source that asks for one."""

_SAFE = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV


def make_tmpfs(options: Mapping[str, str], attributes: int) -> int:
    """A descriptor of an empty, detached one. Raises OSError."""
    context = syscalls.fsopen("tmpfs")
    try:
        for name, value in options.items():
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, name, value)
        with contextlib.suppress(OSError):  # before Linux 6.4, and where there is no swap
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, "noswap")
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        return syscalls.fsmount(context, attributes=attributes)
    finally:
        os.close(context)


def attach(tree: int, path: str, *, is_directory: bool) -> None:
    """Put a detached mount at a path of the container. Raises OSError."""
    target = open_target(path, is_directory)
    try:
        flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
        syscalls.move_mount(tree, "", target, "", flags)
    finally:
        os.close(target)


@dataclass(frozen=True, slots=True)
class GiveTmpfs:
    """Show an empty directory in memory at `target`, everybody's to write; None bytes: what the job's memory allows."""

    target: str
    size_bytes: int | None
    ids: IdMap

    def describe(self) -> str:
        return f"mount a tmpfs at {self.target}"

    def apply(self) -> None:
        root = str(self.ids.first)
        size = {} if self.size_bytes is None else {"size": str(self.size_bytes)}
        filesystem = make_tmpfs({"mode": "1777", "uid": root, "gid": root, **size}, _SAFE)
        try:
            attach(filesystem, self.target, is_directory=True)
        finally:
            os.close(filesystem)
