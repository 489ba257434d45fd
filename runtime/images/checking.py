"""Whether the store holds what it says: names, manifests, packed and unpacked layers, each compared with its digest.

A layer's canonical form (canonical.py) has its diff id, if the layer was made here. What was made elsewhere packs a
tree in another way; then its packed form is unpacked beside it, and both trees are compared. Where that is gone (packed
layers were pruned, a layout was imported) nothing is known of the tree's content.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import Budget
from dayfly.runtime.images.canonical import canonical
from dayfly.runtime.images.manifest import Manifest
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.images.streams import Archive, Packed, Progress, ProgressCallback, Unpacked
from dayfly.runtime.images.unpacker import Unpacker

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """`what` is wrong, or, where `is_fault` is False, could not be compared."""

    what: str
    is_fault: bool = True


class Check:
    """Of one store; `progress` hears of the bytes that were looked at."""

    def __init__(self, store: ImageStore, progress: ProgressCallback | None = None) -> None:
        self._store = store
        self._progress = Progress(progress, None)
        self._checked: set[str] = set()
        self.layers = 0
        """How many unpacked layers were found right."""

    def run(self) -> Iterator[Finding]:
        """Everything that is found, as it is found. No layer goes meanwhile."""
        with self._store.hold():
            yield from self._packed()
            steps = {f"the step {key[:12]} of a build": digest for key, digest in self._store.steps.all().items()}
            for name, digest in {**self._store.names.all(), **steps}.items():
                try:
                    manifest = self._store.names.manifest(digest)
                except ImageError as error:
                    yield Finding(f"{name}: {error}")
                    continue
                if manifest is None and name in steps:
                    continue  # a sweep has taken the image, and forgets the step
                if manifest is None:
                    yield Finding(f"{name}: its manifest {digest} is missing")
                else:
                    yield from self._image(name, manifest)

    def _packed(self) -> Iterator[Finding]:
        for digest in self._store.packed.sizes():
            found = self._digest_of(self._store.packed.path(digest))
            if found != digest:
                yield Finding(f"packed layer {digest}: its bytes are {found}")

    def _digest_of(self, path: str) -> str:
        digest = hashlib.sha256()
        self._progress.what = os.path.basename(path)
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                self._progress.add(len(chunk))
        return f"sha256:{digest.hexdigest()}"

    def _image(self, name: str, manifest: Manifest) -> Iterator[Finding]:
        for index, chain_id in enumerate(manifest.chain_ids):
            if chain_id in self._checked:
                continue
            self._checked.add(chain_id)
            where = f"{name}: layer {index + 1} of {len(manifest.chain_ids)}, {chain_id}"
            if not self._store.layers.has(chain_id):
                yield Finding(f"{where}: it is missing")
                continue
            try:
                self._store.layers.about(chain_id)
                is_right = self._layer(manifest, index)
            except (ImageError, OSError) as error:
                yield Finding(f"{where}: {error}")
                continue
            self.layers += is_right is True
            if is_right is None:
                yield Finding(f"{where}: nothing is here to compare it with", is_fault=False)
            elif not is_right:
                yield Finding(f"{where}: it is not what was unpacked")

    def _layer(self, manifest: Manifest, index: int) -> bool | None:
        """Whether its tree is right; None where that cannot be known."""
        own = canonical(self._store.layers.tree(manifest.chain_ids[index]), self._progress).diff_id
        if own == manifest.diff_ids[index]:
            return True
        packed = self._store.packed.path(manifest.layers[index].digest)
        return self._canonical_of_packed(manifest, index, packed) == own if os.path.exists(packed) else None

    def _canonical_of_packed(self, manifest: Manifest, index: int, path: str) -> str:
        chain_id = manifest.chain_ids[index]
        with ExitStack() as stack:
            stage = stack.enter_context(self._store.layers.stage())
            file = stack.enter_context(open(path, "rb", buffering=0))
            unpacker = Unpacker(self._store.layers, stage, Budget(self._store.limits, path))
            archive = Archive(Unpacked(Packed(file, self._progress), path), unpacker.budget, path)
            contents = unpacker.unpack(archive, chain_id, manifest.chain_ids[:index], path)
            unpacker.keep(chain_id, contents)
            return canonical(stage.tree(chain_id) or "", self._progress).diff_id
