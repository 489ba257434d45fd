"""A job's disk: an ext4 file system of its own, as large as its quota, that the kernel frees by itself.

It lies in a file without a name, attached to a loop device with AUTOCLEAR and mounted detached (fsmount). File, device
and file system go when the last descriptor or mount of it goes, so after a SIGKILL there is nothing to clean up.
Two jobs never share one, and none is used twice.

Was the quota reached? ext4 counts no refused writes, so this is known by looking: `look` is called while the job runs
(worker/disk_looks.py) and once at the end, and keeps the least space and inodes that were ever free. Nothing exact was
found on Linux 6.18: none of /sys/fs/ext4's counters moves for ENOSPC as such (warning_count does for some buffered
writes, whose extents are split as they end, and for no others), and FAN_FS_ERROR tells of errors_count only.
A buffered write that fails leaves less than its own size and less than one large folio of the page cache free
(measured: up to 1.5 MiB), so full means: all that was asked for is used, or no more than that is left. A program that
meets ENOSPC and deletes its file between two looks is not noticed; then the job is `failed` with its own exit code.
"""

import fcntl
import heapq
import os
import stat
import struct
import time
from collections.abc import Mapping
from contextlib import suppress

from dayfly.jobs.errors import HostError, Unsupported
from dayfly.runtime import loop, syscalls
from dayfly.runtime.disk_template import LEAST_BYTES, Directory, template

_IOC_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2  # fs/ext4/ext4.h
_OPTIONS = ("noinit_itable", "nobarrier")
_FULL_BELOW_BYTES = 2 << 20
_FULL_BELOW_SHARE = 8  # but not more than this part of a small disk
_NEARLY_FULL_SHARE = 4
_MUCH_BYTES = 4 << 20
_HOST_FULL_BELOW_BYTES = 64 << 20
_ENTRIES_AT_MOST = 200_000
_DEPTH_AT_MOST = 64


def open_disk(home: str, size_bytes: int, token: str, layout: tuple[Directory, ...] = ()) -> "Disk":
    """A fresh disk in which `size_bytes` fit (8 MiB at least) and the directories of `layout` are there.

    Raises `Unsupported` where this host has no loop devices, no ext4 or no mke2fs, `HostError` for what fails.
    """
    file_fd = template(home, size_bytes, layout).copy(home)
    try:
        device_fd, device = loop.attach(file_fd, f"dayfly:{token}")
        try:
            return Disk(_mount(device), device, file_fd, max(size_bytes, LEAST_BYTES))
        finally:
            os.close(device_fd)
    except BaseException:
        os.close(file_fd)
        raise


class Disk:
    """A mounted disk. `mount_fd` is the detached mount: attach it with move_mount, open files below it with openat."""

    def __init__(self, mount_fd: int, device: str, file_fd: int, size_bytes: int) -> None:
        self.mount_fd = mount_fd
        self._file_fd = file_fd
        self._is_kept = False
        self.device = device
        """As `/dev/loop3`."""
        self.size_bytes = size_bytes
        first = os.statvfs(mount_fd)
        beyond_size = _free_bytes(first) - size_bytes
        self._full_below_bytes = max(beyond_size, min(_FULL_BELOW_BYTES, size_bytes // _FULL_BELOW_SHARE))
        self._used_at_first = first.f_blocks - first.f_bfree
        self._free_bytes = self._least_free_bytes = _free_bytes(first)
        self._least_free_inodes = first.f_ffree
        self._least_free_on_host = _free_bytes(os.fstatvfs(file_fd))

    @property
    def number(self) -> str:
        """The device as control groups name it, `7:3`."""
        return f"{loop.MAJOR}:{self.device.removeprefix('/dev/loop')}"

    def mount_again(self) -> int:
        """A second detached mount, with owners not mapped yet. Raises `HostError`."""
        return _mount(self.device)

    def look(self) -> None:
        """Note what is free now, here and on the host's disk: call it while the job runs, and at its end."""
        now = os.statvfs(self.mount_fd)
        self._free_bytes = _free_bytes(now)
        self._least_free_bytes = min(self._least_free_bytes, self._free_bytes)
        self._least_free_inodes = min(self._least_free_inodes, now.f_ffree)
        self._least_free_on_host = min(self._least_free_on_host, _free_bytes(os.fstatvfs(self._file_fd)))

    def is_nearly_full(self) -> bool:
        """Whether the last look found less than a quarter of the quota free: the next one should come soon."""
        return self._free_bytes < self.size_bytes // _NEARLY_FULL_SHARE

    def was_full(self) -> bool:
        """Whether a look found the quota used up: (nearly) no block or no inode free."""
        return self._least_free_bytes <= self._full_below_bytes or self._least_free_inodes == 0

    def has_lost_writes(self) -> bool:
        """Whether the host's disk ran full, and the kernel could not write back what the job had written.

        The file is sparse, so that this shows inside as an I/O error, or not at all to a job that never syncs; ext4
        counts what it gives up. (Not what is written past the page cache, where the job hears of it itself.)
        """
        if self._least_free_on_host >= _HOST_FULL_BELOW_BYTES or self.was_full():
            return False
        return any(_counted(self.device, what) for what in ("warning_count", "errors_count"))

    def used_bytes(self) -> int:
        """What the job's files take now, their directories included."""
        now = os.statvfs(self.mount_fd)
        return max(0, now.f_blocks - now.f_bfree - self._used_at_first) * now.f_frsize

    def biggest(self, count: int, shown_as: Mapping[str, str], within_seconds: float = 2.0) -> list[tuple[str, int]]:
        """The paths that take most, the largest first: files, and directories (`/x/`) by the rest of what lies in them.

        `shown_as`: directory on this disk to its path in the job (`{"workspace/upper": "/workspace"}`). The tree is
        hostile: nothing is followed, and entries, depth and time are bounded.
        """
        walk = _Walk(count, time.monotonic() + within_seconds)
        for directory, shown in shown_as.items():
            walk.below(self.mount_fd, directory, shown)
        return walk.result()

    def shutdown(self) -> None:
        """Stop the file system at once and forget what was not written: makes closing after much data quick.

        Every access fails from now on; do it when the job is dead and its artifacts are out.
        """
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.mount_fd)
        try:
            fcntl.ioctl(fd, _IOC_SHUTDOWN, struct.pack("=I", _NO_LOG_FLUSH))
        except OSError as error:
            raise HostError("shut down the job's disk", self.device, error.errno) from error
        finally:
            os.close(fd)

    def keep(self, directory_fd: int, name: str) -> None:
        """Give the disk's file a name, so that it outlives us; it is whole when its last mount is gone.

        Raises OSError, for one: EXDEV in a directory on another file system.
        """
        # proc(5): AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH, following this link does not.
        os.link(f"/proc/self/fd/{self._file_fd}", name, dst_dir_fd=directory_fd, follow_symlinks=True)
        self._is_kept = True

    def discard(self) -> None:
        """Close, quickly also after much data. Safe from any state and more than once."""
        if self.mount_fd >= 0 and not self._is_kept and self.used_bytes() > _MUCH_BYTES:
            with suppress(HostError):  # then closing merely takes longer
                self.shutdown()
        self.close()

    def close(self) -> None:
        """Give the descriptors up; with the last mount of it gone too, the kernel frees everything. Safe twice."""
        if self.mount_fd >= 0:
            os.close(self.mount_fd)
            os.close(self._file_fd)
            self.mount_fd = self._file_fd = -1


# Or the kernel warns of writes that meet the end of the disk, and tells every console (KERN_ALERT) of each shutdown and
# of the writes that it gave up; errors are still told. And the first block that is written would cost 1 ms, in which
# the maps of 32 groups are read ahead, that a job hardly ever needs.
_SETTINGS = ("msg_ratelimit_burst", "warning_ratelimit_burst", "mb_prefetch")


def _settle(device: str) -> None:
    """Set all of `_SETTINGS` to 0. sysfs may be read-only: then it is merely loud and slow."""
    for name in _SETTINGS:
        with suppress(OSError):
            fd = os.open(f"/sys/fs/ext4/{os.path.basename(device)}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, b"0")
            finally:
                os.close(fd)


def _counted(device: str, what: str) -> int:
    try:
        with open(f"{_sysfs(device)}/{what}", encoding="ascii") as file:
            return int(file.read())
    except OSError:  # no sysfs here: then it is not known
        return 0


def _sysfs(device: str) -> str:
    return f"/sys/fs/ext4/{os.path.basename(device)}"


def _mount(device: str) -> int:
    try:
        fd = syscalls.fsopen("ext4")
    except OSError as error:
        raise Unsupported("mount a job's disk", "ext4", error.errno, "load ext4: modprobe ext4") from error
    try:
        syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_STRING, "source", device)
        for option in _OPTIONS:
            syscalls.fsconfig(fd, syscalls.FSCONFIG_SET_FLAG, option)
        syscalls.fsconfig(fd, syscalls.FSCONFIG_CMD_CREATE)
        _settle(device)
        # Set-uid programs must work in the job; device nodes must not.
        return syscalls.fsmount(fd, attributes=syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOATIME)
    except OSError as error:
        raise HostError("mount a job's disk", device, error.errno) from error
    finally:
        os.close(fd)


def _free_bytes(reading: os.statvfs_result) -> int:
    return reading.f_bavail * reading.f_frsize


class _Walk:
    """Sizes of a hostile tree, through directory descriptors."""

    def __init__(self, count: int, deadline: float) -> None:
        self._count = count
        self._deadline = deadline
        self._entries = 0
        self._files: list[tuple[int, str]] = []
        self._directories: dict[str, int] = {}

    def below(self, parent_fd: int, name: str, shown: str, depth: int = 0) -> None:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        except OSError:
            return  # not there, or not to be read: the list is for a person, not complete
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    self._entries += 1
                    if self._entries > _ENTRIES_AT_MOST or time.monotonic() > self._deadline:
                        return
                    self._measure(fd, entry, shown, depth)
        finally:
            os.close(fd)

    def result(self) -> list[tuple[str, int]]:
        for size, path in self._files:
            self._directories[path.rpartition("/")[0]] -= size
        directories = [(size, f"{path}/") for path, size in self._directories.items() if size > 0]
        return [(path, size) for size, path in heapq.nlargest(self._count, [*self._files, *directories])]

    def _measure(self, fd: int, entry: "os.DirEntry[str]", shown: str, depth: int) -> None:
        found = entry.stat(follow_symlinks=False)
        path = f"{shown}/{entry.name}"
        if stat.S_ISDIR(found.st_mode):
            if depth < _DEPTH_AT_MOST:
                self.below(fd, entry.name, path, depth + 1)
            return
        size = found.st_blocks * 512
        self._directories[shown] = self._directories.get(shown, 0) + size
        if size:
            (heapq.heappush if len(self._files) < self._count else heapq.heappushpop)(self._files, (size, path))
