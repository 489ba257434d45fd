"""An OCI image layout on disk (image-spec, image-layout.md): index.json, and blobs named by their sha256.

Every blob is checked against its digest and size. `DIR:TAG` names one image of a layout that holds several, as skopeo
and umoci write it.
"""

import os
import stat
from collections.abc import Sequence
from typing import BinaryIO

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    config_of,
    digest_of,
    host_architecture,
    read_descriptors,
    read_json,
    read_manifest,
)

_MAX_NESTING = 8
_UNKNOWN = "unknown/unknown"  # what BuildKit gives to attestations


def split_source(source: str) -> tuple[str, str]:
    """A path, and the tag behind it if the path alone is what exists."""
    path, colon, tag = source.rpartition(":")
    return (path, tag) if colon and not os.path.lexists(source) and os.path.isdir(path) else (source, "")


def is_layout(path: str) -> bool:
    return os.path.isfile(f"{path}/oci-layout") and os.path.isfile(f"{path}/index.json")


class Layout:
    """The layout in the directory `path`."""

    def __init__(self, path: str, limits: ImportLimits) -> None:
        self._path = path
        self._limits = limits

    def read(self, tag: str) -> Manifest:
        """The manifest of the image called `tag` ("" when there is only one) for this machine's platform."""
        index = read_json(self._read_file("index.json"), f"{self._path}/index.json")
        tops = read_descriptors(index, "manifests", f"{self._path}/index.json")
        descriptor = self._choose(self._tagged(tops, tag), 0)
        source = f"{self._path}: manifest {descriptor.digest[:19]}"
        raw = self._read_blob(descriptor)
        raw_config = self._read_blob(config_of(read_json(raw, source), source))
        manifest = read_manifest(raw, raw_config, source)
        if len(manifest.layers) > self._limits.layers:
            raise ImageError(f"{source}: {len(manifest.layers)} layers, more than {self._limits.layers}")
        return manifest

    def open_layer(self, layer: Descriptor) -> BinaryIO:
        """The layer's packed bytes; whoever reads them compares their digest with the descriptor's."""
        return self._open(_blob_path(layer.digest), layer.size)

    def _tagged(self, tops: Sequence[Descriptor], tag: str) -> Sequence[Descriptor]:
        if tag:
            chosen = [top for top in tops if top.tag == tag]
            if not chosen:
                raise ImageError(f"{self._path}: no image is tagged {tag!r}", f"it has {_listed(tops)}")
            return chosen
        if len({top.tag for top in tops}) > 1 and len({top.digest for top in tops}) > 1:
            raise ImageError(
                f"{self._path}: it holds several images", f"say which: {self._path}:TAG of {_listed(tops)}"
            )
        return tops

    def _choose(self, candidates: Sequence[Descriptor], depth: int) -> Descriptor:
        """Descend through indexes to the manifest for this platform."""
        if depth > _MAX_NESTING:
            raise ImageError(f"{self._path}: indexes nested more than {_MAX_NESTING} deep")
        descriptor = self._for_this_machine([item for item in candidates if item.platform != _UNKNOWN])
        if descriptor.media_type in INDEX_TYPES:
            source = f"{self._path}: index {descriptor.digest[:19]}"
            document = read_json(self._read_blob(descriptor), source)
            return self._choose(read_descriptors(document, "manifests", source), depth + 1)
        if descriptor.media_type not in MANIFEST_TYPES:
            raise ImageError(f"{self._path}: {descriptor.media_type[:100]!r} is not the type of an image's manifest")
        return descriptor

    def _for_this_machine(self, candidates: Sequence[Descriptor]) -> Descriptor:
        wanted = f"linux/{host_architecture()}"
        fitting = (
            [item for item in candidates if item.platform == wanted]
            or [item for item in candidates if item.platform.startswith(wanted + "/")]
            or [item for item in candidates if not item.platform]
        )
        if not fitting:
            offered = ", ".join(sorted({item.platform for item in candidates})) or "nothing"
            raise ImageError(f"{self._path}: no image for {wanted}; it has {offered}")
        if len({item.digest for item in fitting}) > 1:
            raise ImageError(f"{self._path}: {len(fitting)} images fit {wanted}", "tag the one that is meant")
        return fitting[0]

    def _read_blob(self, descriptor: Descriptor) -> bytes:
        raw = self._read_file(_blob_path(descriptor.digest), descriptor.size)
        if digest_of(raw) != descriptor.digest:
            raise ImageError(f"{self._path}: blob {descriptor.digest} is damaged: its bytes are {digest_of(raw)}")
        return raw

    def _read_file(self, name: str, size: int | None = None) -> bytes:
        limit = self._limits.json_bytes
        if size is not None and size > limit:
            raise ImageError(f"{self._path}: {name} has {size} bytes, more than {limit}")
        with self._open(name, size) as file:
            raw = file.read(limit + 1)
        if len(raw) > limit:
            raise ImageError(f"{self._path}: {name} has more than {limit} bytes")
        return raw

    def _open(self, name: str, size: int | None) -> BinaryIO:
        """A regular file of the layout. Links are followed (Bazel's layouts are made of them): the digest decides."""
        path = f"{self._path}/{name}"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ImageError(f"cannot read {path}: {error.strerror}", "is the layout complete?") from error
        file = open(fd, "rb", buffering=0)  # noqa: SIM115  # the caller closes it
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or (size is not None and status.st_size != size):
            file.close()
            raise ImageError(f"{path}: not a regular file" + ("" if size is None else f" of {size} bytes"))
        return file


def _blob_path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _listed(tops: Sequence[Descriptor]) -> str:
    return ", ".join(sorted({top.tag or "an untagged one" for top in tops})[:10])
