"""A range of user and group ids for each container, so that two jobs never own the same file or process.

A range is held by a POSIX lock on one byte of a file that all workers of the host share (fcntl(2)): the kernel lets
go of it when the keeper dies, however it dies, and a restarted agent has nothing to remember.
"""

import fcntl
import os

from dayfly.jobs.errors import HostError

RANGE_SIZE = 65536
# Inside the block that systemd's UIDS-GIDS document leaves to containers (524288 to 1879048191), above the ranges
# that useradd hands out in /etc/subuid.
_FIRST_ID = 0x50000000
_RANGES = 8192
_LOCK_FILE = "/run/dayfly-ids.lock"


class IdRange:
    """The ids `first` to `first + 65535`, held until `release` or the end of this process."""

    def __init__(self, first: int, lock_fd: int) -> None:
        self.first = first
        self._lock_fd = lock_fd

    @classmethod
    def acquire(cls) -> "IdRange":
        """Hold the first free range. Raises `HostError` when all 8192 are taken."""
        fd = os.open(_LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        for index in range(_RANGES):
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
            except (BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES when another holds it
                continue
            return cls(_FIRST_ID + index * RANGE_SIZE, fd)
        os.close(fd)
        raise HostError("take a range of user ids", _LOCK_FILE, None, f"all {_RANGES} ranges are in use on this host")

    def release(self) -> None:
        """Let go of the range (closing any descriptor of the file would too: this process opens it once)."""
        os.close(self._lock_fd)
