"""The canonical form of a layer: what its tree is as an archive of ours.

Its sha256 is the diff id of what is made here, so that it can be packed again, and looked over, by the tree alone.
"""

import hashlib
import os
from dataclasses import dataclass

from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.streams import Progress
from dayfly.runtime.images.treetar import TreeTar


@dataclass(frozen=True, slots=True)
class Canonical:
    """Digest and size in bytes of the archive."""

    diff_id: str
    size: int


def canonical(tree: str, progress: Progress | None = None) -> Canonical:
    """Of the layer in overlay's form at the path `tree`. Raises ImageError, OSError."""
    digest, size = hashlib.sha256(), 0
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        archive = TreeTar(fd, tree, progress or Progress(None, None), ImportLimits().depth, is_layer=True)
        while piece := archive.read():
            digest.update(piece)
            size += len(piece)
    finally:
        os.close(fd)
    return Canonical(f"sha256:{digest.hexdigest()}", size)
