"""Whether a keeper lives, and a descriptor of it: by the POSIX lock that it holds on its directory's `lock`.

POSIX, not flock(2): F_GETLK names the holder, and a fork (init) does not inherit it. A pid alone could be another
process by now, so: ask for the holder, open a pidfd, ask again. Works for processes that are not our children.
"""

import fcntl
import os
import struct

NAME = "lock"

# struct flock of fcntl(2): l_type, l_whence, l_start, l_len, l_pid; native alignment.
_FLOCK = struct.Struct("hhqqi")
_PADDED = struct.calcsize("hhqqi0q")
_QUESTION = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0).ljust(_PADDED, b"\0")


def holder(directory: str) -> int | None:
    """The pid that holds the lock in `directory`; None when nobody does, or there is no lock or directory."""
    try:
        fd = os.open(f"{directory}/{NAME}", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        kind, _, _, _, pid = _FLOCK.unpack_from(fcntl.fcntl(fd, fcntl.F_GETLK, _QUESTION))
    finally:
        os.close(fd)
    return None if kind == fcntl.F_UNLCK else pid


def follow(directory: str) -> tuple[int, int] | None:
    """(pid, pidfd) of the keeper of `directory`; None when it is dead. The caller closes the pidfd."""
    while (pid := holder(directory)) is not None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue  # it died between the two calls: the lock is free now
        if holder(directory) == pid:
            return pid, pidfd
        os.close(pidfd)
    return None
