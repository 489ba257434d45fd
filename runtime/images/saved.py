"""The archive that `docker save` wrote before it wrote OCI layouts, and `podman save` writes still.

    manifest.json      [{"Config": "<id>.json", "RepoTags": ["debian:12"], "Layers": ["<id>/layer.tar", …]}]

It has no manifest of a registry; the image gets one of its own, made from the configuration and the layers alone.
"""

import json
from collections.abc import Sequence
from typing import Any, BinaryIO

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.files import ImageFiles
from dayfly.runtime.images.manifest import Descriptor, Manifest, layered_manifest, read_json

_WHAT = "manifest.json"


class SavedImage:
    """A `LayerSource`: the image called `tag` ("" when there is only one)."""

    remedy = "save it again"

    def __init__(self, files: ImageFiles, tag: str, limits: ImportLimits) -> None:
        self.where = files.where
        self._files = files
        self._tag = tag
        self._limits = limits
        self._names: dict[str, str] = {}

    def read(self) -> Manifest:
        image = self._choose(self._images())
        names = image.get("Layers")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ImageError(f"{self.where}: {_WHAT}: Layers must be a list of names")
        raw_config = self._read(str(image.get("Config", "")))
        rootfs = read_json(raw_config, f"{self.where}: its configuration").get("rootfs")
        diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        if not isinstance(diff_ids, list) or len(diff_ids) != len(names):
            raise ImageError(f"{self.where}: {len(names)} layers, and a configuration of others")
        sizes = [self._files.size(name) for name in names]
        manifest = layered_manifest(raw_config, diff_ids, sizes, self.where)
        self._names = dict(zip(manifest.diff_ids, names, strict=True))
        return manifest

    def expect(self, layers: Sequence[Descriptor]) -> None:
        """They are there."""

    def open_layer(self, layer: Descriptor) -> BinaryIO:
        return self._files.open(self._names[layer.digest], layer.size)

    def fetch_again(self, layer: Descriptor) -> bool:
        return False

    def _images(self) -> list[dict[str, Any]]:
        try:
            images = json.loads(self._read(_WHAT))
        except (ValueError, RecursionError) as error:
            raise ImageError(f"{self.where}: {_WHAT}: not JSON: {error}") from error
        if not isinstance(images, list) or not images or not all(isinstance(image, dict) for image in images):
            raise ImageError(f"{self.where}: {_WHAT} must be a list of images")
        return images

    def _choose(self, images: Sequence[dict[str, Any]]) -> dict[str, Any]:
        tags = [_tags(image) for image in images]
        if not self._tag:
            if len(images) > 1:
                listed = ", ".join(sorted(tag for each in tags for tag in each)[:10])
                raise ImageError(f"{self.where}: it holds several images", f"say which: {self.where}:TAG of {listed}")
            return images[0]
        for image, names in zip(images, tags, strict=True):
            if any(name == self._tag or name.endswith(":" + self._tag) for name in names):
                return image
        listed = ", ".join(sorted(tag for each in tags for tag in each)[:10]) or "an untagged one"
        raise ImageError(f"{self.where}: no image is tagged {self._tag!r}", f"it has {listed}")

    def _read(self, name: str) -> bytes:
        with self._files.open(name) as file:
            raw = file.read(self._limits.json_bytes + 1)
        if len(raw) > self._limits.json_bytes:
            raise ImageError(f"{self.where}: {name[:200]!r} has more than {self._limits.json_bytes} bytes")
        return raw


def _tags(image: dict[str, Any]) -> list[str]:
    tags = image.get("RepoTags")
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
