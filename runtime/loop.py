"""Loop devices: a file as a block device, freed by the kernel when its last user is gone.

A device is attached with AUTOCLEAR, so it ends with the mount that uses it, however the process ends. Its name
(`lo_file_name`) is `dayfly:<token>`, so that whoever looks finds whose it is.
"""

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress

from dayfly.jobs.errors import HostError, Unsupported

# linux/loop.h
_CTL_GET_FREE, _CONFIGURE, _GET_STATUS64 = 0x4C82, 0x4C0A, 0x4C05
_READ_ONLY, _AUTOCLEAR = 1, 4
_INFO = struct.Struct("=QQQQQIIII64s64s32sQQ")  # struct loop_info64
_CONFIG = struct.Struct(f"=II{_INFO.size}s64x")  # struct loop_config
_NAME = 9  # lo_file_name in _INFO
MAJOR = 7
_BLOCK_BYTES = 4096
_TRIES = 100  # others may take the free device first


def attach(file_fd: int, name: str, *, is_read_only: bool = False) -> tuple[int, str]:
    """Attach a file to a free device. Returns a descriptor of the device and its path; close it once it is mounted.

    Raises `Unsupported` where this host or this process may have no loop devices.
    """
    flags = _AUTOCLEAR | (_READ_ONLY if is_read_only else 0)
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name.encode()[:63], b"", b"", 0, 0)
    config = _CONFIG.pack(file_fd, _BLOCK_BYTES, info)
    control = _open_control()
    try:
        for _ in range(_TRIES):
            number = fcntl.ioctl(control, _CTL_GET_FREE)
            device = f"/dev/loop{number}"
            fd = _open_device(device, number)
            try:
                fcntl.ioctl(fd, _CONFIGURE, config)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise HostError("attach a loop device", device, error.errno) from error
            else:
                return fd, device
    finally:
        os.close(control)
    raise HostError("attach a loop device", reason="every free one was taken by others", remedy="try again")


def attached(prefix: str = "dayfly:") -> dict[str, str]:
    """The devices in use whose name begins with `prefix`: path to name."""
    found = {}
    for entry in os.listdir("/sys/block"):
        if entry.startswith("loop"):
            name = _name_of(f"/dev/{entry}")
            if name is not None and name.startswith(prefix):
                found[f"/dev/{entry}"] = name
    return found


def _open_control() -> int:
    try:
        return os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unsupported("attach a loop device", "/dev/loop-control", error.errno, _remedy(error)) from error


def _open_device(device: str, number: int) -> int:
    try:
        try:
            return os.open(device, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # A container's /dev does not follow the kernel's.
            with suppress(FileExistsError):
                os.mknod(device, stat.S_IFBLK | 0o600, os.makedev(MAJOR, number))
            return os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unsupported("open a loop device", device, error.errno, _remedy(error)) from error


def _remedy(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "load the module (modprobe loop), or run jobs without `limits.disk`"
    return "run the worker as root with its devices (--privileged in Docker), or run jobs without `limits.disk`"


def _name_of(device: str) -> str | None:
    try:
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None  # not ours to see
    try:
        fields = _INFO.unpack(fcntl.ioctl(fd, _GET_STATUS64, bytes(_INFO.size)))
    except OSError as error:
        if error.errno == errno.ENXIO:  # not attached
            return None
        raise
    finally:
        os.close(fd)
    name: bytes = fields[_NAME]
    return name.partition(b"\0")[0].decode(errors="replace")
