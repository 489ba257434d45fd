"""How much one import may take: images are hostile input, and a megabyte can unpack to a terabyte."""

from dataclasses import dataclass

from dayfly.jobs.errors import ImageError

# Below this a high ratio is no danger: a few megabytes of zeros compress a thousandfold.
_RATIO_FLOOR_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportLimits:
    """What an import is refused beyond. The defaults are some ten times what large images have.

    `bytes` counts what leaves the decompressor and what files claim to hold (a sparse file may claim more than the
    archive has), over all layers; `ratio` is unpacked to packed, applied above 256 MiB; `depth` counts the parts of a
    path; `header_bytes` is what one entry's names and attributes may take; `json_bytes` a manifest, index or config.
    """

    bytes: int = 128 << 30
    entries: int = 2_000_000
    ratio: int = 200
    depth: int = 256
    header_bytes: int = 4 << 20
    json_bytes: int = 4 << 20
    layers: int = 127


class Budget:
    """What an import has used of its limits. Each method raises ImageError once a limit is passed."""

    def __init__(self, limits: ImportLimits, source: str) -> None:
        self.limits = limits
        self._source = source
        self._entries = 0
        self._claimed = 0
        self._unpacked = 0

    def take_entry(self, depth: int) -> None:
        self._entries += 1
        if self._entries > self.limits.entries:
            raise self._refusal(f"more than {self.limits.entries} files and directories")
        if depth > self.limits.depth:
            raise self._refusal(f"a path of more than {self.limits.depth} parts")

    def take_claim(self, size_bytes: int) -> None:
        """Count a file's apparent size."""
        self._claimed += size_bytes
        if self._claimed > self.limits.bytes:
            raise self._refusal(f"files of more than {self.limits.bytes} bytes together")

    def take_bytes(self, count: int, stream_packed: int, stream_unpacked: int) -> None:
        """Count `count` more unpacked bytes, of a stream that has read `stream_packed` and given `stream_unpacked`."""
        self._unpacked += count
        if self._unpacked > self.limits.bytes:
            raise self._refusal(f"more than {self.limits.bytes} bytes unpacked")
        if stream_unpacked > _RATIO_FLOOR_BYTES and stream_unpacked > stream_packed * self.limits.ratio:
            raise self._refusal(f"an archive that unpacks to more than {self.limits.ratio} times its size")

    def _refusal(self, what: str) -> ImageError:
        return ImageError(
            f"cannot import {self._source}: it holds {what}, which is past the limit",
            "if you trust it, import it with a higher limit (ImportLimits)",
        )
