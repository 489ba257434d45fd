"""The import of an image that comes in layers: an OCI layout, the archive of `docker save`, a registry."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import BinaryIO, Protocol

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.ahead import Ahead
from dayfly.runtime.images.budget import Budget, ImportLimits
from dayfly.runtime.images.layers import Layers, Stage
from dayfly.runtime.images.manifest import Descriptor, Manifest, host_architecture
from dayfly.runtime.images.streams import Archive, Packed, Progress, ProgressCallback, Unpacked
from dayfly.runtime.images.unpacker import Unpacker


class LayerSource(Protocol):
    """Where such an image comes from. Each method raises ImageError."""

    @property
    def where(self) -> str:
        """What names it in errors."""
        ...

    @property
    def remedy(self) -> str:
        """What helps when bytes are not what they should be."""
        ...

    def read(self) -> Manifest: ...

    def expect(self, layers: Sequence[Descriptor]) -> None:
        """These will be opened, in this order."""
        ...

    def open_layer(self, layer: Descriptor) -> BinaryIO:
        """The layer's packed bytes; whoever reads them compares their digest with the descriptor's."""
        ...

    def fetch_again(self, layer: Descriptor) -> bool:
        """Whether there are other bytes of a layer that could not be unpacked. Raises ImageError if none are right."""
        ...


class LayeredImport:
    """Unpacks into `stage` those layers that `layers` does not have."""

    def __init__(
        self,
        source: LayerSource,
        layers: Layers,
        stage: Stage,
        limits: ImportLimits,
        callback: ProgressCallback | None = None,
    ) -> None:
        self._source = source
        self._stage = stage
        self._limits = limits
        self._callback = callback
        self._unpacker = Unpacker(layers, stage, Budget(limits, source.where))
        self.warnings = self._unpacker.warnings

    def run(self) -> Manifest:
        """Unpack everything that is missing from the store, and return the image's manifest. Raises ImageError."""
        manifest = self._source.read()
        self._check(manifest)
        self._stage.pin_packed(layer.digest for layer in manifest.layers)
        present = self._stage.pin(manifest.chain_ids)
        missing = [index for index, chain_id in enumerate(manifest.chain_ids) if chain_id not in present]
        self._source.expect([manifest.layers[index] for index in missing])
        progress = Progress(self._callback, sum(manifest.layers[index].size for index in missing))
        for index in missing:
            progress.what = f"layer {index + 1} of {len(manifest.layers)}"
            self._until_unpacked(manifest, index, progress)
        return manifest

    def _until_unpacked(self, manifest: Manifest, index: int, progress: Progress) -> None:
        while True:
            try:
                self._layer(manifest, index, progress)
                break
            except ImageError:
                if not self._source.fetch_again(manifest.layers[index]):
                    raise

    def _check(self, manifest: Manifest) -> None:
        if len(manifest.layers) > self._limits.layers:
            raise ImageError(f"{self._source.where}: {len(manifest.layers)} layers, more than {self._limits.layers}")
        architecture = manifest.config.get("architecture", "")
        if architecture and architecture != host_architecture():
            self.warnings.append(f"the image is for {architecture}, this machine is {host_architecture()}")

    def _layer(self, manifest: Manifest, index: int, progress: Progress) -> None:
        descriptor, chain_id = manifest.layers[index], manifest.chain_ids[index]
        where = f"{self._source.where}: layer {descriptor.digest[:19]}"
        with ExitStack() as stack:
            packed = Packed(stack.enter_context(self._source.open_layer(descriptor)), progress)
            unpacked = stack.enter_context(Ahead(Unpacked(packed, where)))
            archive = Archive(unpacked, self._unpacker.budget, where)
            contents = self._unpacker.unpack(archive, chain_id, manifest.chain_ids[:index], where)
        for what, is_, should_be in (
            ("its bytes are", packed.digest, descriptor.digest),
            ("unpacked it is", unpacked.digest, manifest.diff_ids[index]),
        ):
            if is_ != should_be:
                raise ImageError(f"{where} is damaged: {what} {is_}, not {should_be}", self._source.remedy)
        self._unpacker.keep(chain_id, contents)
