"""Unpacks the layers of one import into its stage, each upon those below it."""

import os
from collections.abc import Sequence
from contextlib import ExitStack

from dayfly.runtime.images.below import Below
from dayfly.runtime.images.budget import Budget
from dayfly.runtime.images.layers import Layer, Layers, Stage
from dayfly.runtime.images.streams import Archive
from dayfly.runtime.images.unpack import Contents, unpack


class Unpacker:
    """`budget` is what all layers together may take; `warnings` what was left out of them, in sentences."""

    def __init__(self, layers: Layers, stage: Stage, budget: Budget) -> None:
        self.budget = budget
        self.warnings: list[str] = []
        self._layers = layers
        self._stage = stage

    def unpack(self, archive: Archive, chain_id: str, below: Sequence[str], where: str) -> Contents:
        """Unpack one layer as `chain_id` upon `below`, the bottom one first. Raises ImageError, which names `where`."""
        with ExitStack() as stack:
            root = _open_directory(self._stage.make(chain_id), stack)
            trees = [self._stage.tree(under) or self._layers.tree(under) for under in reversed(below)]
            layers = Below([_open_directory(tree, stack) for tree in trees])
            return unpack(archive, root, layers, self.budget, where)

    def keep(self, chain_id: str, contents: Contents) -> None:
        """It is what it should be."""
        self._stage.describe(chain_id, Layer(contents.size_bytes, contents.entries))
        self.warnings += contents.warnings


def _open_directory(path: str, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd
