"""The packed layers of the store, as registries have them: what a push sends and an export writes, byte for byte.

    packed/<digest>        a blob whose digest was seen to be right when it came
    packed/<digest>.part   one that is on its way, or that broke off and may be gone on with; locked (flock) meanwhile

A layer is never run from here, and each can be fetched again where it came from.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Collection, Iterator
from typing import BinaryIO

from dayfly.runtime.staging import is_still

_PART = ".part"
_PART_IS_OLD_SECONDS = 24 * 3600.0


class PackedLayers:
    """Those below the store's directory `root`."""

    def __init__(self, root: str) -> None:
        self._directory = f"{root}/packed"
        os.makedirs(self._directory, 0o700, exist_ok=True)

    def path(self, digest: str) -> str:
        return f"{self._directory}/{digest.removeprefix('sha256:')}"

    def has(self, digest: str) -> bool:
        return os.path.exists(self.path(digest))

    def size_bytes(self, digest: str) -> int:
        """0 when it is not there."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            return 0

    def sizes(self) -> dict[str, int]:
        """Those that are whole, and their bytes."""
        names = [name for name in os.listdir(self._directory) if not name.endswith(_PART)]
        return {f"sha256:{name}": self.size_bytes(f"sha256:{name}") for name in names}

    @contextlib.contextmanager
    def incoming(self, digest: str) -> Iterator[BinaryIO | None]:
        """The file to write a blob to, with what came of it before, for us alone; None: it is there.

        Waits while another process fetches the same blob.
        """
        part = self.path(digest) + _PART
        while not self.has(digest):
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with open(fd, "r+b", buffering=0) as file:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if is_still(fd, part):
                    yield file
                    return
        yield None

    def keep(self, digest: str, file: BinaryIO) -> None:
        """`file` is that of `incoming`, and whole."""
        os.fsync(file.fileno())
        os.rename(self.path(digest) + _PART, self.path(digest))

    def give_up(self, digest: str) -> None:
        """What came of a blob is something else; who reads it goes on with what it has."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest) + _PART)

    def link(self, digest: str, path: str) -> bool:
        """Give the blob a further name, by which it stays whatever becomes of this one; False when it is not there."""
        try:
            os.link(self.path(digest), path)
        except FileNotFoundError:
            return False
        return True

    def drop(self, digest: str) -> None:
        """It is not what it should be."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(digest))

    def delete_except(self, kept: Collection[str]) -> int:
        """Delete all others, and what broke off a day ago and was not gone on with; returns the bytes freed."""
        freed = 0
        for name in os.listdir(self._directory):
            path = f"{self._directory}/{name}"
            with contextlib.suppress(FileNotFoundError):  # a part that came to its place meanwhile
                if _is_abandoned(path) if name.endswith(_PART) else "sha256:" + name not in kept:
                    freed += os.lstat(path).st_blocks * 512
                    os.unlink(path)
        return freed


def _is_abandoned(path: str) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return time.time() - os.stat(path).st_mtime > _PART_IS_OLD_SECONDS
