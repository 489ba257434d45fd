"""A job's directory as its keeper sees it: through a descriptor, since the agent renames it at "go".

Every file appears whole or not at all (write, rename). None is synced: a power cut reboots the host, and the job is
requeued by its lease, so a torn file after one is read as "never ended" (measured: fsync doubles the cost).
"""

import os
from typing import Any, Self

from dayfly.worker import exit as exits

_LARGEST = 64 << 20


class JobDirectory:
    """`fd` is the directory; it stays open as long as the keeper lives."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def open(cls, path: str) -> Self:
        return cls(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    def mark(self, name: str) -> None:
        """Make an empty file that tells the agent how far the job is."""
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=self.fd))

    def read(self, name: str) -> bytes:
        """A whole file. Raises FileNotFoundError."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        with open(fd, "rb", buffering=0) as file:
            return file.read(_LARGEST) or b""

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, by rename."""
        own = f"{name}.tmp"
        fd = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600, dir_fd=self.fd)
        with open(fd, "wb", buffering=0) as file:
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[file.write(remaining) :]
        os.rename(own, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def write_exit(self, **fields: Any) -> None:
        """Write exit.json: the agent takes the job for ended from here on."""
        self.write(exits.NAME, exits.Exit(**fields).to_json())
