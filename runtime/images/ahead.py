"""Unpacking ahead of need, in a thread: decompressors and digests let go of Python's lock, and use another core."""

import hashlib
import queue
import threading
from contextlib import AbstractContextManager
from typing import Self

from dayfly.runtime.images.streams import Stream

_PIECES = 4  # of up to 1 MiB each
_Item = tuple[bytes, int] | BaseException


class Ahead(AbstractContextManager["Ahead"]):
    """A Stream that is read, and hashed, by a thread until it ends or this is left."""

    def __init__(self, stream: Stream) -> None:
        self.packed_bytes = 0
        self._stream = stream
        self._hash = hashlib.sha256()
        self._items: queue.Queue[_Item] = queue.Queue(_PIECES)
        self._is_left = False
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name="unpacking", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_left = True
        while self._thread.is_alive():
            self._make_room()
            self._thread.join(0.01)

    @property
    def digest(self) -> str:
        """Of all that was read, once that is all there is."""
        return "sha256:" + self._hash.hexdigest()

    def read(self) -> bytes:
        if self._is_over:
            return b""
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        piece, self.packed_bytes = item
        self._is_over = not piece
        return piece

    def _run(self) -> None:
        piece = b"more"
        try:
            while piece and not self._is_left:
                piece = self._stream.read()
                self._hash.update(piece)
                self._items.put((piece, self._stream.packed_bytes))
        except BaseException as error:  # noqa: BLE001 - it is the reader's, who raises it
            self._items.put(error)

    def _make_room(self) -> None:
        """So that the thread, if it waits with a piece, sees that nobody reads any more."""
        while not self._items.empty():
            self._items.get()
