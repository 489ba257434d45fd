"""A job's directory as its keeper sees it: through descriptors, since the agent renames it at "go".

The keeper makes two files and no more, as each new inode costs the host's file system:
- `lock`, which it holds from its birth to its death, and in which the agent writes the lease;
- one whose *name* says how far the job is: `preparing`, `ready`, `running`, `collecting`, and in the end `exit.json`.
  From its birth on it has the room that a short exit needs, so that a full disk cannot silence its own report.

None is synced: a power cut reboots the host, and the job is requeued by its lease, so a torn file after one is read as
"never ended" (measured: fsync doubles the cost).
"""

import fcntl
import os
from typing import Any, Self

from dayfly.jobs.errors import HostError
from dayfly.runtime.operations import remedy_for
from dayfly.worker import exit as exits
from dayfly.worker import jobfiles, joblock

_RESERVED_BYTES = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class JobDirectory:
    """`fd` is the directory; it stays open as long as the keeper lives."""

    def __init__(self, fd: int, lock_fd: int) -> None:
        self.fd = fd
        self._lock_fd = lock_fd
        self._state_fd = -1
        self._state = jobfiles.PREPARING

    @classmethod
    def open(cls, path: str) -> Self:
        """Open it and hold its lock, by which the agent knows this keeper: POSIX, since init would inherit one of
        flock(2). It is let go of with any descriptor of the file, so the file is opened once."""
        fd = os.open(path, _DIRECTORY)
        lock_fd = os.open(joblock.NAME, _NEW, 0o600, dir_fd=fd)
        fcntl.lockf(lock_fd, fcntl.LOCK_EX)
        return cls(fd, lock_fd)

    @property
    def path(self) -> str:
        """Where it is now, for people: the agent moves it."""
        return os.readlink(f"/proc/self/fd/{self.fd}")

    @property
    def has_exit(self) -> bool:
        return self._state == exits.NAME

    def begin(self) -> None:
        """Make the file that tells how far the job is. Raises HostError."""
        try:
            self._state_fd = os.open(self._state, _NEW, 0o600, dir_fd=self.fd)
            os.write(self._state_fd, bytes(_RESERVED_BYTES))
        except OSError as error:
            raise self._failure(self._state, error) from error

    def mark(self, state: str) -> None:
        """Tell the agent how far the job is. Raises HostError."""
        try:
            os.rename(self._state, state, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise self._failure(state, error) from error
        self._state = state

    def read(self, name: str) -> bytes:
        """A whole file, which the agent does not change any more. Raises FileNotFoundError."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return os.read(fd, os.fstat(fd).st_size)
        finally:
            os.close(fd)

    def lease_ends_at(self) -> float | None:
        """The deadline that the agent wrote last (CLOCK_BOOTTIME); None when it has written none."""
        written = os.pread(self._lock_fd, 32, 0)
        return int(written) / 1000 if written else None

    def write_exit(self, **fields: Any) -> None:
        """Write exit.json, whole when it has its name: the agent takes the job for ended from then on.

        Raises HostError.
        """
        content = exits.Exit(**fields).to_json()
        if len(content) >= jobfiles.LARGEST:
            raise HostError(
                "write", f"{self.path}/{exits.NAME}", reason=f"{len(content)} bytes are too many to be read"
            )
        try:
            self._overwrite(content)
        except OSError as error:
            raise self._failure(exits.NAME, error) from error
        self.mark(exits.NAME)

    def _overwrite(self, content: bytes) -> None:
        """Over what is there: its blocks are taken already."""
        written = 0
        while written < len(content):
            written += os.pwrite(self._state_fd, memoryview(content)[written:], written)
        os.ftruncate(self._state_fd, len(content))

    def _failure(self, name: str, error: OSError) -> HostError:
        return HostError("write", f"{self.path}/{name}", error.errno, remedy_for(error))
