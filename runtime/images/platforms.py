"""Through indexes to the manifest for a platform (image-spec, image-index.md)."""

from collections.abc import Callable, Sequence

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    host_architecture,
    read_descriptors,
    read_json,
)

_MAX_NESTING = 8
_UNKNOWN = "unknown/unknown"  # what BuildKit gives to attestations


def host_platform() -> str:
    return f"linux/{host_architecture()}"


class Platforms:
    """`where` names the source in errors, `wanted` is "linux/amd64", `read_blob` gives a blob whose digest is right."""

    def __init__(self, where: str, wanted: str, read_blob: Callable[[Descriptor], bytes]) -> None:
        self._where = where
        self._wanted = wanted
        self._read_blob = read_blob

    def choose(self, candidates: Sequence[Descriptor], depth: int = 0) -> Descriptor:
        """Descend to the one manifest that fits. Raises ImageError."""
        if depth > _MAX_NESTING:
            raise ImageError(f"{self._where}: indexes nested more than {_MAX_NESTING} deep")
        descriptor = self._fitting([item for item in candidates if item.platform != _UNKNOWN])
        if descriptor.media_type in INDEX_TYPES:
            source = f"{self._where}: index {descriptor.digest[:19]}"
            document = read_json(self._read_blob(descriptor), source)
            return self.choose(read_descriptors(document, "manifests", source), depth + 1)
        if descriptor.media_type not in MANIFEST_TYPES:
            raise ImageError(f"{self._where}: {descriptor.media_type[:100]!r} is not the type of an image's manifest")
        return descriptor

    def _fitting(self, candidates: Sequence[Descriptor]) -> Descriptor:
        fitting = (
            [item for item in candidates if item.platform == self._wanted]
            or [item for item in candidates if item.platform.startswith(self._wanted + "/")]
            or [item for item in candidates if not item.platform]
        )
        if not fitting:
            offered = ", ".join(sorted({item.platform for item in candidates})) or "nothing"
            raise ImageError(f"{self._where}: no image for {self._wanted}; it has {offered}")
        if len({item.digest for item in fitting}) > 1:
            raise ImageError(f"{self._where}: {len(fitting)} images fit {self._wanted}", "tag the one that is meant")
        return fitting[0]
