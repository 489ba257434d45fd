"""What the store holds, and what of it may go: usage, pruning by need and by room.

Images go by name, the least recently used first; with the last name of an image go its layers, unless a job or another
image has them. Before any image packed layers go, each of which can be fetched again or packed anew, and what builds
have made on their way.
"""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial

from dayfly.runtime.images.manifest import Manifest
from dayfly.runtime.images.reference import is_digest
from dayfly.runtime.images.store import ImageStore, InUse


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and numbers; each layer counts once, however many images share it.

    `idle_bytes`: layers that no job and no warm keeper uses now, though images need them.
    """

    images: int
    layers: int
    layers_bytes: int
    idle_bytes: int
    packed: int
    packed_bytes: int
    unneeded_bytes: int


@dataclass(frozen=True, slots=True)
class Room:
    """How full a file system is: shares of its bytes and of its inodes, 0 to 1."""

    bytes_used: float
    inodes_used: float

    @classmethod
    def of(cls, path: str) -> "Room":
        now = os.statvfs(path)
        inodes = (now.f_files - now.f_ffree) / now.f_files if now.f_files else 0.0
        return cls((now.f_blocks - now.f_bavail) / now.f_blocks, inodes)

    def is_above(self, share: float) -> bool:
        return max(self.bytes_used, self.inodes_used) > share


class Keeping:
    """Of one store; `in_use` gives the absolute paths of the layers that jobs and warm keepers use now."""

    def __init__(self, store: ImageStore, in_use: InUse) -> None:
        self._store = store
        self._in_use = in_use

    def usage(self) -> Usage:
        """What is there. Raises ImageError."""
        store = self._store
        manifests = dict(self._manifests())
        needed = {chain_id for manifest in manifests.values() for chain_id in manifest.chain_ids}
        wanted = {layer.digest for manifest in manifests.values() for layer in manifest.layers}
        sizes = {chain_id: store.layers.size_bytes(chain_id) for chain_id in store.layers.known()}
        used = set(self._in_use())
        busy = {chain_id for chain_id in sizes if store.layers.tree(chain_id) in used}
        packed = store.packed.sizes()
        unneeded = sum(size for chain_id, size in sizes.items() if chain_id not in needed | busy)
        return Usage(
            images=len({manifest.digest for manifest in manifests.values()}),
            layers=len(sizes),
            layers_bytes=sum(sizes.values()),
            idle_bytes=sum(size for chain_id, size in sizes.items() if chain_id not in busy),
            packed=len(packed),
            packed_bytes=sum(packed.values()),
            unneeded_bytes=unneeded + sum(size for digest, size in packed.items() if digest not in wanted),
        )

    def prune_unneeded(self) -> int:
        """Delete what no name and no job needs; returns the bytes freed."""
        return self._store.sweep(self._in_use)

    def prune(self, *, with_named: bool = False, with_packed: bool = False, with_steps: bool = False) -> int:
        """Take away images that have lost their names, and with them all that nothing needs; returns the bytes freed.

        `with_named`: and those with names that nobody uses now; `with_packed`: and every packed layer; `with_steps`:
        and what builds have made on their way.
        """
        for key in self._store.steps.all() if with_steps else ():
            self._store.steps.forget(key)
        for name in list(self._idle(with_named)):
            self._store.forget(name)
        freed = self._store.packed.delete_except(()) if with_packed else 0
        return freed + self._store.sweep(self._in_use)

    def make_room(self, high: float, low: float) -> int:
        """Where its file system is fuller than `high`, take away until it is no fuller than `low`; the bytes freed.

        Shares, 0 to 1, of bytes and of inodes.
        """
        if not Room.of(self._store.root).is_above(high):
            return 0
        freed = self._store.packed.delete_except(()) + self._store.sweep(self._in_use)
        steps = [partial(self._store.steps.forget, key) for key in self._store.steps.all()]
        images = [partial(self._store.forget, name) for name in self._idle(with_named=True)]
        for forget in [*steps, *images]:
            if not Room.of(self._store.root).is_above(low):
                break
            forget()
            freed += self._store.sweep(self._in_use)
        return freed

    def _idle(self, with_named: bool) -> Iterator[str]:
        """The names of images that nobody uses now, the least recently used first."""
        used = set(self._in_use())
        found = dict(self._manifests())
        for name in sorted(found, key=self._store.names.used):
            if (with_named or is_digest(name)) and not _is_used(found[name], self._store, used):
                yield name

    def _manifests(self) -> Iterator[tuple[str, Manifest]]:
        for name, digest in self._store.names.all().items():
            manifest = self._store.names.manifest(digest)
            if manifest is not None:
                yield name, manifest


def _is_used(manifest: Manifest, store: ImageStore, used: Collection[str]) -> bool:
    return bool(manifest.chain_ids) and store.layers.tree(manifest.chain_ids[-1]) in used
