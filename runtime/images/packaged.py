"""An image as it leaves this host: its manifest, and for each layer a file with its packed bytes.

What came from a registry or a layout leaves as it came, byte for byte, and with its digest. A layer of which only the
tree is here is packed anew; the manifest then is a new one, too.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from dayfly.runtime.images.layers import Layers
from dayfly.runtime.images.manifest import DOCKER_MANIFEST, Manifest, canonical_json, digest_of, read_manifest
from dayfly.runtime.images.packed import PackedLayers
from dayfly.runtime.images.packing import PackedLayer, pack
from dayfly.runtime.images.streams import ProgressCallback

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@dataclass(frozen=True, slots=True)
class PackagedImage:
    """`files` are the paths of the layers' packed bytes, in the manifest's order."""

    manifest: Manifest
    files: tuple[str, ...]


@contextmanager
def packaged(
    manifest: Manifest, layers: Layers, packed: PackedLayers, progress: ProgressCallback | None = None
) -> Iterator[PackagedImage]:
    """The image of `manifest`, ready to leave; within the block none of its files goes. Raises ImageError, OSError."""
    with layers.stage() as stage:
        stage.pin(manifest.chain_ids)
        files = [f"{stage.scratch()}-{index}" for index in range(len(manifest.layers))]
        made: dict[int, PackedLayer] = {}
        for index, (layer, file) in enumerate(zip(manifest.layers, files, strict=True)):
            if not packed.link(layer.digest, file):
                made[index] = pack(layers.tree(manifest.chain_ids[index]), file, progress)
        yield PackagedImage(_renewed(manifest, made) if made else manifest, tuple(files))


def _renewed(manifest: Manifest, made: Mapping[int, PackedLayer]) -> Manifest:
    """The same image, of other layers at these places."""
    document, config = json.loads(manifest.raw), json.loads(manifest.raw_config)
    is_dockers = document.get("mediaType") == DOCKER_MANIFEST
    for index, layer in made.items():
        config["rootfs"]["diff_ids"][index] = layer.diff_id
        kind = _DOCKER_LAYER if is_dockers else layer.descriptor.media_type
        document["layers"][index] = {
            "mediaType": kind,
            "digest": layer.descriptor.digest,
            "size": layer.descriptor.size,
        }
    raw_config = canonical_json(config)
    document["config"] |= {"digest": digest_of(raw_config), "size": len(raw_config)}
    return read_manifest(canonical_json(document), raw_config, "the image")
