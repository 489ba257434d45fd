"""A pull: an image of a registry as a source of layers, several coming at a time, the bottom one first."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import BinaryIO, Self, cast

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.manifest import Descriptor, Manifest
from dayfly.runtime.images.packed import PackedLayers
from dayfly.runtime.images.platforms import host_platform
from dayfly.runtime.registry.address import Address
from dayfly.runtime.registry.download import Download, Reading
from dayfly.runtime.registry.remote import RemoteImage
from dayfly.runtime.registry.settings import RegistrySettings

_AT_A_TIME = 4
_STOP_SECONDS = 1.0  # for those that wait for a registry which does not answer

LayerProgress = Callable[[str, int, int], None]
"""Hears of a layer's digest, the bytes of it that are here, and those it has."""


class Pull:
    """A context manager, and a `LayerSource` of layered.py."""

    remedy = "pull it again"

    def __init__(
        self,
        address: Address,
        settings: RegistrySettings,
        limits: ImportLimits,
        packed: PackedLayers,
        progress: LayerProgress | None = None,
        platform: str | None = None,
    ) -> None:
        self.where = str(address)
        self._limits = limits
        self._packed = packed
        self._progress = progress
        self._platform = platform or host_platform()
        self._image = RemoteImage(address, settings, limits.json_bytes)
        self._downloads: dict[str, Download] = {}
        self._again: set[str] = set()
        self._waiting: queue.SimpleQueue[Download | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for download in self._downloads.values():
            download.stop()
        self._image.__exit__(kind, error, at)
        until = time.monotonic() + _STOP_SECONDS
        for download in self._downloads.values():
            if download.wait(max(until - time.monotonic(), 0.0)):
                download.close()

    @property
    def digest(self) -> str:
        """Of the manifest or the index that the name means; an index has a manifest for each platform."""
        return self._image.digest

    def read(self) -> Manifest:
        """The manifest for the platform. Raises ImageError."""
        manifest = self._image.read(self._platform)
        total = sum(layer.size for layer in manifest.layers)
        if total > self._limits.bytes:
            raise ImageError(f"cannot pull {self.where}: its layers have {total} bytes, more than {self._limits.bytes}")
        return manifest

    def expect(self, layers: Sequence[Descriptor]) -> None:
        """Begin to fetch these, in this order."""
        for layer in layers:
            if layer.digest not in self._downloads:
                self._begin(layer)
        for _ in range(min(_AT_A_TIME, len(self._downloads))):
            self._waiting.put(None)
            threading.Thread(target=self._work, daemon=True).start()

    def open_layer(self, layer: Descriptor) -> BinaryIO:
        """Its packed bytes, as they come."""
        return cast("BinaryIO", Reading(self._downloads[layer.digest]))

    def fetch_again(self, layer: Descriptor) -> bool:
        """Whether a layer that could not be unpacked had come damaged, and is fetched a second time now.

        Raises ImageError when it was the second time.
        """
        download = self._downloads[layer.digest]
        download.wait()
        if not download.is_suspect:
            return False
        if layer.digest in self._again and download.error is not None:
            raise download.error
        self._again.add(layer.digest)
        download.close()
        self._begin(layer)
        self._waiting.put(None)
        threading.Thread(target=self._work, daemon=True).start()
        return True

    def _begin(self, layer: Descriptor) -> None:
        self._downloads[layer.digest] = Download(self._image, layer, self._packed, self._took)
        self._waiting.put(self._downloads[layer.digest])

    def _work(self) -> None:
        while (download := self._waiting.get()) is not None:
            download.run()

    def _took(self, layer: Descriptor, size: int) -> None:
        if self._progress is not None:
            self._progress(layer.digest, size, layer.size)
