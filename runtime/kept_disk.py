"""The disk that a job has left (`keep`), looked at again: attached and mounted read-only while somebody looks.

On a host that cannot limit disks it is a directory (directory_disk.py).
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from dayfly.jobs.errors import HostError
from dayfly.runtime import loop, syscalls


@contextmanager
def mounted(path: str) -> Iterator[int]:
    """A descriptor of the root of the file system in the file `path`, mounted for nobody else. Raises HostError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise HostError("open the disk that was kept in", path, error.errno) from error
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        fd = _attached(fd)
    try:
        yield fd
    finally:
        os.close(fd)


def _attached(file_fd: int) -> int:
    """The root of the file system in a file, which is closed."""
    try:
        device_fd, device = loop.attach(file_fd, "dayfly:kept", is_read_only=True)
    finally:
        os.close(file_fd)
    try:
        return _mount(device)
    finally:
        os.close(device_fd)


def _mount(device: str) -> int:
    fd = -1
    try:
        fd = syscalls.fsopen("ext4")
        syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, "source", device)
        syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_FLAG, "ro")
        syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE)
        attributes = syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NOEXEC
        return syscalls.fsmount(fd, attributes=attributes | syscalls.MOUNT_ATTR_RDONLY)
    except OSError as error:
        raise HostError("mount the disk that was kept, at", device, error.errno) from error
    finally:
        if fd >= 0:
            os.close(fd)
