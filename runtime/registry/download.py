"""A layer on its way into the store, from where it broke off, hashed as it comes; others read it meanwhile."""

import hashlib
import io
import os
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

import httpx2

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import Descriptor
from dayfly.runtime.images.packed import PackedLayers
from dayfly.runtime.registry.remote import RemoteImage

_FRUITLESS_TRIES = 6
_PAUSE_SECONDS = 0.5
_CHUNK_BYTES = 1 << 20


class Download:
    """One layer. `took` hears how many bytes of it are here, whenever that changes."""

    def __init__(
        self, image: RemoteImage, layer: Descriptor, packed: PackedLayers, took: Callable[[Descriptor, int], None]
    ) -> None:
        self.layer = layer
        self._image = image
        self._packed = packed
        self._took = took
        self._changed = threading.Condition()
        self._fd = -1
        self._size = 0
        self._is_over = False
        self._is_stopped = False
        self._error: Exception | None = None
        self.is_suspect = False
        """What was read of it may have been something else than what its digest says; known once it is over."""

    def run(self) -> None:
        """Fetch it. What goes wrong is told to whoever reads it."""
        try:
            self._check_wanted()
            self._run()
        except Exception as error:  # noqa: BLE001 - raised again by read()
            self._error = error
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def stop(self) -> None:
        """Nobody needs it any more."""
        self._is_stopped = True

    def wait(self, seconds: float | None = None) -> bool:
        """Until it is over, well or badly; False when it is not within `seconds`."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_over, seconds)

    def read(self, offset: int, count: int) -> bytes:
        """At most `count` bytes from there, as soon as there is one; none at the end. Raises ImageError, OSError."""
        with self._changed:
            self._changed.wait_for(lambda: self._size > offset or self._is_over)
            if self._size <= offset and self._error is not None:
                raise self._error
        return os.pread(self._fd, min(count, self._size - offset), offset) if self._size > offset else b""

    @property
    def error(self) -> Exception | None:
        """Why it failed; known once it is over."""
        return self._error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _run(self) -> None:
        with self._packed.incoming(self.layer.digest) as file:
            if file is None:
                self._fd = os.open(self._packed.path(self.layer.digest), os.O_RDONLY | os.O_CLOEXEC)
                self._grow(self.layer.size)
                return
            self._fd = os.dup(file.fileno())
            digest = self._fetch(file)
            if digest != self.layer.digest:
                self.is_suspect = True
                self._packed.give_up(self.layer.digest)
                raise ImageError(f"{self._name} came damaged: its bytes are {digest}", "pull it again")
            self._packed.keep(self.layer.digest, file)

    def _fetch(self, file: BinaryIO) -> str:
        hashed = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):  # what an earlier one has brought
            hashed.update(chunk)
        if file.tell() > self.layer.size:
            file.truncate(0)
            hashed = _start_again(file)
        self._grow(file.tell())
        fruitless = 0
        while file.tell() < self.layer.size:
            before = file.tell()
            try:
                hashed = self._go_on(file, hashed)
                why = "the connection was closed"
            except httpx2.TransportError as error:
                why = str(error) or type(error).__name__
            fruitless = 0 if file.tell() > before else fruitless + 1
            if fruitless > _FRUITLESS_TRIES:
                raise ImageError(f"{self._name} broke off at byte {before} of {self.layer.size}: {why}")
            if file.tell() < self.layer.size:
                time.sleep(_PAUSE_SECONDS * fruitless)
        return f"sha256:{hashed.hexdigest()}"

    def _go_on(self, file: BinaryIO, hashed: "hashlib._Hash") -> "hashlib._Hash":
        with self._image.blob(self.layer, file.tell()) as response:
            if file.tell() and response.status_code == 200:  # it knows no Range
                self.is_suspect, hashed = True, _start_again(file)
            for piece in response.iter_raw():
                self._check_wanted()
                if file.tell() + len(piece) > self.layer.size:
                    raise ImageError(f"{self._name} has more than the {self.layer.size} bytes that its manifest says")
                hashed.update(piece)
                file.write(piece)
                self._grow(file.tell())
        return hashed

    def _check_wanted(self) -> None:
        if self._is_stopped:
            raise ImageError(f"{self._name} is not needed any more")

    def _grow(self, size: int) -> None:
        """Never less: what was read stays true, and comes once more with the same bytes if the blob is what it says."""
        with self._changed:
            self._size = max(self._size, size)
            self._changed.notify_all()
        self._took(self.layer, size)

    @property
    def _name(self) -> str:
        return f"layer {self.layer.digest[:19]}"


class Reading(io.RawIOBase):
    """A file that is read while its download goes on; closing it closes nothing else."""

    def __init__(self, download: Download) -> None:
        self._download = download
        self._at = 0

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        piece = self._download.read(self._at, count if count >= 0 else self._download.layer.size)
        self._at += len(piece)
        return piece


def _start_again(file: BinaryIO) -> "hashlib._Hash":
    """What is there is written over, not taken away: somebody reads it."""
    file.seek(0)
    return hashlib.sha256()
