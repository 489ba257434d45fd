"""The user and group ids of a container, so that a job never owns what is somebody else's.

Host root takes a range for each container, so that two jobs never own the same file or process. It is held by a POSIX
lock on one byte of a file that all workers of the host share (fcntl(2)): the kernel lets go of it when the keeper dies,
however it dies, and a restarted agent has nothing to remember. Files have the job's ids on disk, and each mount maps
them into the range.

A worker that is not root stands in a user namespace of its own (user_namespace.py), where no file system of the host
can be mounted with mapped owners. So its jobs share one range, and files on disk have the ids of that range.
"""

import fcntl
import os
from dataclasses import dataclass

from dayfly.jobs.errors import HostError

RANGE_SIZE = 65536
OWN_ID = 65536
"""What a worker's own user is in the namespace of a rootless worker: above the job's ids, so that none is that user."""

# Inside the block that systemd's UIDS-GIDS document leaves to containers (524288 to 1879048191), above the ranges
# that useradd hands out in /etc/subuid.
_FIRST_ID = 0x50000000
_RANGES = 8192
_FIRST_TRIED = 2048  # the lower ones first: a bridge has addresses for some 4000
_LOCK_FILE = "/run/dayfly-ids.lock"


@dataclass(frozen=True, slots=True)
class IdMap:
    """A job's ids from 0 to `size - 1` are ours from `first` on.

    `is_mounted`: file systems are mounted with mapped owners, so files on disk have the ids that the job sees.
    """

    first: int
    size: int = RANGE_SIZE
    is_mounted: bool = True

    @property
    def is_single(self) -> bool:
        """The job has no id but 0: nobody gave the worker's user any others."""
        return self.size == 1

    def on_disk(self, job_id: int) -> int:
        """What a file of that id has on disk, as we see it; root's where the job has no such id."""
        if self.is_mounted:
            return job_id
        return self.first + (job_id if job_id < self.size else 0)


def own_id_map() -> IdMap | None:
    """The one that all jobs share in the namespace of a rootless worker; None for host root, who takes a range each."""
    with open("/proc/self/uid_map", encoding="ascii") as file:
        inside = [int(line.split()[0]) for line in file]
    if OWN_ID not in inside:
        return None
    return IdMap(0, RANGE_SIZE, is_mounted=False) if 0 in inside else IdMap(OWN_ID, 1, is_mounted=False)


class HeldPlace:
    """One of the places 0, 1, 2 … that a lock file stands for, until `release` or the end of this process."""

    def __init__(self, index: int, lock_fd: int) -> None:
        self.index = index
        self._lock_fd = lock_fd

    @classmethod
    def acquire(cls, path: str, count: int, begin: int) -> "HeldPlace | None":
        """Hold the first free one from `begin` on; None when all `count` are taken. Raises OSError."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        for index in (*range(begin, count), *range(begin)):
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, index)
            except (BlockingIOError, PermissionError):  # fcntl(2): EAGAIN or EACCES when another holds it
                continue
            return cls(index, fd)
        os.close(fd)
        return None

    def release(self) -> None:
        """Let go of it (closing any descriptor of the file would too: this process opens it once)."""
        os.close(self._lock_fd)


class IdRange:
    """A range of the host's, held as long as its place among them."""

    def __init__(self, place: "HeldPlace") -> None:
        self.place = place
        self.ids = IdMap(_FIRST_ID + place.index * RANGE_SIZE)

    @classmethod
    def acquire(cls) -> "IdRange":
        """Hold a free range. Raises `HostError` when all 8192 are taken.

        The search begins where the pid says, so that a range comes back late: what lags behind its last holder (a link
        that the kernel still takes down, an answer on its way to an address) is long over by then.
        """
        place = HeldPlace.acquire(_LOCK_FILE, _RANGES, os.getpid() % _FIRST_TRIED)
        if place is None:
            raise HostError(
                "take a range of user ids", _LOCK_FILE, None, f"all {_RANGES} ranges are in use on this host"
            )
        return cls(place)
