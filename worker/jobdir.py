"""A job's directory as its keeper sees it: through a descriptor, since the agent renames it at "go".

Every file appears whole or not at all (write, rename). None is synced: a power cut reboots the host, and the job is
requeued by its lease, so a torn file after one is read as "never ended" (measured: fsync doubles the cost).
"""

import os
from typing import Any, Self

from dayfly.jobs.errors import HostError
from dayfly.runtime.operations import remedy_for
from dayfly.worker import exit as exits

_LARGEST = 64 << 20
_DRAFT = f"{exits.NAME}.tmp"
_RESERVED_BYTES = 4096


class JobDirectory:
    """`fd` is the directory; it stays open as long as the keeper lives."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: str) -> Self:
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @property
    def path(self) -> str:
        """Where it is now, for people: the agent moves it."""
        return os.readlink(f"/proc/self/fd/{self.fd}")

    def mark(self, name: str) -> None:
        """Make an empty file that tells the agent how far the job is. Raises HostError."""
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd))
        except OSError as error:
            raise self._failure(name, error) from error

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        with open(fd, "rb", buffering=0) as file:
            return file.read(_LARGEST) or b""

    def has_exit(self) -> bool:
        return os.access(exits.NAME, os.F_OK, dir_fd=self.fd)

    def reserve_exit(self) -> None:
        """Take the room that a short exit needs, so that a full disk cannot silence its own report."""
        try:
            self._draft_exit(bytes(_RESERVED_BYTES))
        except OSError as error:
            raise self._failure(exits.NAME, error) from error

    def write_exit(self, **fields: Any) -> None:
        """Write exit.json, whole, by rename: the agent takes the job for ended from here on. Raises HostError."""
        content = exits.Exit(**fields).to_json()
        try:
            self._draft_exit(content)
            os.rename(_DRAFT, exits.NAME, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        except OSError as error:
            raise self._failure(exits.NAME, error) from error

    def _draft_exit(self, content: bytes) -> None:
        """Over what is there: its blocks are taken already."""
        fd = os.open(_DRAFT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        with open(fd, "wb", buffering=0) as file:
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[file.write(remaining) :]
            file.truncate(len(content))

    def _failure(self, name: str, error: OSError) -> HostError:
        return HostError("write", f"{self.path}/{name}", error.errno, remedy_for(error))
