"""Manifests and configurations of images, OCI's and Docker's, read as hostile JSON; and our own for a plain root.

An image's digest is that of its manifest's bytes, as everywhere else.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.image import DEFAULT_PATH
from dayfly.runtime.images.reference import is_digest

INDEX_TYPES = frozenset(
    ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
)
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MANIFEST_TYPES = frozenset((OCI_MANIFEST, DOCKER_MANIFEST))
_CONFIG_TYPES = frozenset(
    ("application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json")
)
_LAYER_PREFIXES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}  # Go's names for uname's


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob as its parent names it. `platform` is "linux/amd64" or empty, `tag` its name in an OCI layout's index."""

    media_type: str
    digest: str
    size: int
    platform: str = ""
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest with its configuration: the bytes as they are stored, and what was read from them.

    `layers` and `diff_ids` are in the order of application, the bottom one first.
    """

    raw: bytes
    raw_config: bytes
    config: Mapping[str, Any]
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]

    @property
    def digest(self) -> str:
        return digest_of(self.raw)

    @property
    def blobs(self) -> frozenset[str]:
        """The digests of the manifest and of its configuration."""
        return frozenset((self.digest, digest_of(self.raw_config)))

    @property
    def chain_ids(self) -> tuple[str, ...]:
        return chain_ids(self.diff_ids)


def digest_of(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """OCI's ChainIDs: each names a layer together with all that lie below it (image-spec, config.md)."""
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(digest_of(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
    return tuple(chains)


def read_json(raw: bytes, source: str) -> Mapping[str, Any]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{source}: not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ImageError(f"{source}: must be a JSON object, got {type(document).__name__}")
    return document


def media_type_of(document: Mapping[str, Any], said: str) -> str:
    """What a registry's answer is: its own word, else that of the answer's header, else what it looks like."""
    if document.get("schemaVersion") == 1:
        raise ImageError("the image is of Docker's manifest schema 1", "have it pushed again with any newer Docker")
    known = INDEX_TYPES | MANIFEST_TYPES
    own = _text(document.get("mediaType"))
    if own in known or said in known:
        return own if own in known else said
    if "manifests" in document:
        return "application/vnd.oci.image.index.v1+json"
    return OCI_MANIFEST if "layers" in document else own or said


def read_descriptors(document: Mapping[str, Any], key: str, source: str) -> tuple[Descriptor, ...]:
    items = document.get(key)
    if not isinstance(items, list):
        raise ImageError(f"{source}: {key} must be a list of descriptors")
    return tuple(read_descriptor(item, f"{source}: {key}[{index}]") for index, item in enumerate(items))


def read_descriptor(item: object, source: str) -> Descriptor:
    if not isinstance(item, dict):
        raise ImageError(f"{source}: must be a descriptor")
    digest, size = item.get("digest"), item.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise ImageError(f"{source}: digest {str(digest)[:80]!r} is not sha256: and 64 hexadecimal digits")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ImageError(f"{source}: size {str(size)[:40]!r} is not a number of bytes")
    tag = _text(_object(item, "annotations").get("org.opencontainers.image.ref.name"))
    return Descriptor(_text(item.get("mediaType")), digest, size, _platform(_object(item, "platform")), tag)


def config_of(manifest: Mapping[str, Any], source: str) -> Descriptor:
    """The descriptor of a manifest's configuration; a Helm chart or a signature is refused here."""
    descriptor = read_descriptor(manifest.get("config"), f"{source}: config")
    if descriptor.media_type not in _CONFIG_TYPES:
        raise ImageError(f"{source}: not a container image: its config is of type {descriptor.media_type[:100]!r}")
    return descriptor


def read_manifest(raw: bytes, raw_config: bytes, source: str) -> Manifest:
    """Read a manifest and its configuration, whose digests have been checked. Raises ImageError."""
    document, config = read_json(raw, source), read_json(raw_config, f"{source}: config")
    layers = read_descriptors(document, "layers", source)
    for layer in layers:
        if not layer.media_type.startswith(_LAYER_PREFIXES) or layer.media_type.endswith("+encrypted"):
            raise ImageError(f"{source}: a layer of type {layer.media_type[:100]!r}, which cannot be unpacked")
    diff_ids = _object(config, "rootfs").get("diff_ids")
    if not isinstance(diff_ids, list) or not all(isinstance(item, str) and is_digest(item) for item in diff_ids):
        raise ImageError(f"{source}: config: rootfs.diff_ids must be a list of sha256 digests")
    if len(diff_ids) != len(layers) or not layers:
        raise ImageError(f"{source}: {len(layers)} layers in the manifest and {len(diff_ids)} in its config")
    return Manifest(raw, raw_config, config, layers, tuple(diff_ids))


def make_manifest(diff_id: str, size: int) -> Manifest:
    """A manifest for a plain root of one layer: the same layer always gets the same digest."""
    shell = {"Env": [f"PATH={DEFAULT_PATH}"], "Cmd": ["/bin/sh"]}
    config = {
        "architecture": host_architecture(),
        "os": "linux",
        "config": shell,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "dayfly image import"}],
    }
    return layered_manifest(canonical_json(config), [diff_id], [size], "manifest")


def told_history(manifest: Manifest) -> list[dict[str, Any]]:
    """The history of an image, one entry at least for each layer, as those who build upon it rely on (image-spec,
    config.md): when entries are missing, they are those of the lowest layers."""
    entries = manifest.config.get("history")
    told = [dict(each) for each in entries if isinstance(each, dict)] if isinstance(entries, list) else []
    silent = len(manifest.diff_ids) - sum(1 for each in told if not each.get("empty_layer"))
    return [{"comment": "its image does not tell of this layer"} for _ in range(silent)] + told


def layered_manifest(raw_config: bytes, diff_ids: Sequence[str], sizes: Sequence[int], source: str) -> Manifest:
    """A manifest for layers that are not packed, of these sizes in bytes. Raises ImageError."""
    layers = [
        _described("application/vnd.oci.image.layer.v1.tar", diff_id, size)
        for diff_id, size in zip(diff_ids, sizes, strict=True)
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": _described("application/vnd.oci.image.config.v1+json", digest_of(raw_config), len(raw_config)),
        "layers": layers,
    }
    return read_manifest(canonical_json(document), raw_config, source)


def with_layer(base: Manifest | None, diff_id: str, size: int, config: Mapping[str, Any], source: str) -> Manifest:
    """The manifest of `base` with one layer more, which is not packed, and `config` in place of its own.

    None: an image of that layer alone. Raises ImageError.
    """
    diff_ids = [*(base.diff_ids if base else ()), diff_id]
    raw_config = canonical_json({**config, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    if base is None:
        return layered_manifest(raw_config, diff_ids, [size], source)
    document = json.loads(base.raw)
    document["layers"].append(_described("application/vnd.oci.image.layer.v1.tar", diff_id, size))
    document["config"] |= {"digest": digest_of(raw_config), "size": len(raw_config)}
    return read_manifest(canonical_json(document), raw_config, source)


def with_config(base: Manifest, config: Mapping[str, Any], source: str) -> Manifest:
    """The same layers with another configuration. Raises ImageError."""
    raw_config = canonical_json({**config, "rootfs": {"type": "layers", "diff_ids": list(base.diff_ids)}})
    document = json.loads(base.raw)
    document["config"] |= {"digest": digest_of(raw_config), "size": len(raw_config)}
    return read_manifest(canonical_json(document), raw_config, source)


def host_architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def _described(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def canonical_json(document: Mapping[str, Any]) -> bytes:
    """The same document always the same bytes, and so the same digest."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _platform(platform: Mapping[str, Any]) -> str:
    """ "linux/arm/v7"; arm64's only variant is left out."""
    parts = [_text(platform.get(key)) for key in ("os", "architecture", "variant")]
    if parts[1] == "arm64":
        parts[2] = ""
    return "/".join(part for part in parts if part)
