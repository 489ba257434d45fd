"""An OCI image layout (image-spec, image-layout.md): index.json, and blobs named by their sha256.

Every blob is checked against its digest and size. `DIR:TAG` names one image of a layout that holds several, as skopeo
and umoci write it.
"""

import os
from collections.abc import Sequence
from typing import BinaryIO

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.files import ImageFiles
from dayfly.runtime.images.manifest import (
    Descriptor,
    Manifest,
    config_of,
    digest_of,
    read_descriptors,
    read_json,
    read_manifest,
)
from dayfly.runtime.images.platforms import Platforms, host_platform


def split_source(source: str) -> tuple[str, str]:
    """A path, and the tag behind it if the path alone is what exists."""
    path, colon, tag = source.rpartition(":")
    return (path, tag) if colon and not os.path.lexists(source) and os.path.exists(path) else (source, "")


def is_layout(path: str) -> bool:
    return os.path.isfile(f"{path}/oci-layout") and os.path.isfile(f"{path}/index.json")


class Layout:
    """A `LayerSource`: the image called `tag` ("" when there is only one), for this machine's platform."""

    remedy = "copy the layout again"

    def __init__(self, files: ImageFiles, tag: str, limits: ImportLimits) -> None:
        self.where = files.where
        self._files = files
        self._tag = tag
        self._limits = limits

    def read(self) -> Manifest:
        index = read_json(self._read_file("index.json"), f"{self.where}/index.json")
        tops = read_descriptors(index, "manifests", f"{self.where}/index.json")
        descriptor = Platforms(self.where, host_platform(), self._read_blob).choose(self._tagged(tops))
        source = f"{self.where}: manifest {descriptor.digest[:19]}"
        raw = self._read_blob(descriptor)
        raw_config = self._read_blob(config_of(read_json(raw, source), source))
        return read_manifest(raw, raw_config, source)

    def expect(self, layers: Sequence[Descriptor]) -> None:
        """They are there."""

    def open_layer(self, layer: Descriptor) -> BinaryIO:
        return self._files.open(_blob_path(layer.digest), layer.size)

    def fetch_again(self, layer: Descriptor) -> bool:
        return False

    def _tagged(self, tops: Sequence[Descriptor]) -> Sequence[Descriptor]:
        if self._tag:
            chosen = [top for top in tops if top.tag == self._tag]
            if not chosen:
                raise ImageError(f"{self.where}: no image is tagged {self._tag!r}", f"it has {_listed(tops)}")
            return chosen
        if len({top.tag for top in tops}) > 1 and len({top.digest for top in tops}) > 1:
            raise ImageError(
                f"{self.where}: it holds several images", f"say which: {self.where}:TAG of {_listed(tops)}"
            )
        return tops

    def _read_blob(self, descriptor: Descriptor) -> bytes:
        raw = self._read_file(_blob_path(descriptor.digest), descriptor.size)
        if digest_of(raw) != descriptor.digest:
            raise ImageError(f"{self.where}: blob {descriptor.digest} is damaged: its bytes are {digest_of(raw)}")
        return raw

    def _read_file(self, name: str, size: int | None = None) -> bytes:
        limit = self._limits.json_bytes
        if size is not None and size > limit:
            raise ImageError(f"{self.where}: {name} has {size} bytes, more than {limit}")
        with self._files.open(name, size) as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise ImageError(f"{self.where}: {name} has more than {limit} bytes")
        return raw


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _listed(tops: Sequence[Descriptor]) -> str:
    return ", ".join(sorted({top.tag or "an untagged one" for top in tops})[:10])
