"""A layer more: what a job wrote over an image, or was copied to it, becomes an image itself.

It goes the way of every layer, as an archive that is unpacked: the same changes have the same digest wherever they were
made, and nothing of where they come from is trusted.
"""

from collections.abc import Mapping
from typing import Any

from dayfly.jobs.errors import ImageError, ImageNotFound
from dayfly.runtime.images.budget import Budget, ImportLimits
from dayfly.runtime.images.canonical import canonical
from dayfly.runtime.images.layers import Layers, Stage
from dayfly.runtime.images.manifest import Manifest, chain_ids, with_layer
from dayfly.runtime.images.streams import Archive, Progress, ProgressCallback, Stream
from dayfly.runtime.images.treetar import TreeTar
from dayfly.runtime.images.unpacker import Unpacker

_PENDING = "sha256:pending"


def archive_of(
    tree: int,
    where: str,
    skip: frozenset[str] = frozenset(),
    latest_second: int | None = None,
    progress: ProgressCallback | None = None,
) -> TreeTar:
    """The changes at the descriptor `tree`, in overlay's form, but for the paths in `skip`; no time is later than
    `latest_second`."""
    told = Progress(progress, None)
    depth = ImportLimits().depth
    return TreeTar(tree, where, told, depth, is_layer=True, latest_second=latest_second, skip=skip)


def add_layer(
    base: Manifest | None,
    changes: Stream,
    config: Mapping[str, Any],
    layers: Layers,
    stage: Stage,
    limits: ImportLimits,
    where: str,
) -> tuple[Manifest, list[str]]:
    """Unpack the archive `changes` upon the layers of `base`; the manifest of both, and warnings.

    `config` is the whole configuration of the new image, but for its layers. Raises ImageError, OSError.
    """
    below = base.chain_ids if base else ()
    if len(below) >= limits.layers:
        raise ImageError(f"{where} has {len(below)} layers, as many as an image may have", "join steps into one RUN")
    if stage.pin(below) != set(below):
        raise ImageNotFound(where)
    unpacker = Unpacker(layers, stage, Budget(limits, where))
    archive = Archive(changes, unpacker.budget, where)
    contents = unpacker.unpack(archive, _PENDING, below, where)
    unpacker.keep(_PENDING, contents)
    made = canonical(stage.tree(_PENDING) or "")
    stage.rename(_PENDING, chain_ids((*(base.diff_ids if base else ()), made.diff_id))[-1])
    manifest = with_layer(base, made.diff_id, made.size, config, where)
    left_out = changes.left_out if isinstance(changes, TreeTar) else {}
    return manifest, [*unpacker.warnings, *(f"left out {count} {what}" for what, count in sorted(left_out.items()))]
