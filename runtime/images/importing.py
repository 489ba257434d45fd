"""One import: read a source once, unpack its layers beside the store, and say under which manifest they belong.

Nothing of it can be seen in the store before `ImageStore` places it.
"""

import os
import stat
from contextlib import ExitStack
from typing import BinaryIO

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.below import Below
from dayfly.runtime.images.budget import Budget, ImportLimits
from dayfly.runtime.images.layers import Layer, Layers, Stage
from dayfly.runtime.images.layout import Layout, is_layout, split_source
from dayfly.runtime.images.manifest import Manifest, host_architecture, make_manifest
from dayfly.runtime.images.streams import Archive, Packed, Progress, ProgressCallback, Unpacked
from dayfly.runtime.images.treetar import TreeTar
from dayfly.runtime.images.unpack import Contents, unpack

_PENDING = "sha256:pending"


class Import:
    """Reads `source`, and unpacks into `stage` what `layers` does not have."""

    def __init__(
        self, source: str, layers: Layers, stage: Stage, limits: ImportLimits, callback: ProgressCallback | None
    ) -> None:
        self._path, self._tag = split_source(source)
        self._layers = layers
        self._stage = stage
        self._limits = limits
        self._callback = callback
        self._budget = Budget(limits, source)
        self.warnings: list[str] = []

    def run(self) -> Manifest:
        """Unpack everything that is missing from the store, and return the image's manifest."""
        try:
            is_directory = stat.S_ISDIR(os.stat(self._path).st_mode)
        except OSError as error:
            raise ImageError(f"cannot import {self._path}: {error.strerror}") from error
        if not is_directory:
            return self._tarball()
        if is_layout(self._path):
            return self._layout()
        if self._tag:
            raise ImageError(f"cannot import {self._path}:{self._tag}: {self._path} is not an OCI layout")
        return self._directory()

    def _tarball(self) -> Manifest:
        with _open_regular(self._path) as file:
            progress = Progress(self._callback, os.fstat(file.fileno()).st_size)
            progress.what = os.path.basename(self._path)
            stream = Unpacked(Packed(file, progress), self._path)
            archive = Archive(stream, self._budget, self._path)
            contents = self._unpack(_PENDING, archive, ())
        if not archive.last_block:
            raise ImageError(f"{self._path}: the archive has no end mark", "is the file complete?")
        return self._single(archive, contents)

    def _directory(self) -> Manifest:
        with ExitStack() as stack:
            progress = Progress(self._callback, None)
            progress.what = self._path
            tree = TreeTar(_open_directory(self._path, stack), self._path, progress, self._limits.depth)
            archive = Archive(tree, self._budget, self._path)
            contents = self._unpack(_PENDING, archive, ())
        self.warnings += [f"left out {count} {what}" for what, count in sorted(tree.left_out.items())]
        return self._single(archive, contents)

    def _single(self, archive: Archive, contents: Contents) -> Manifest:
        _check_is_root(contents, self._path)
        self._keep(_PENDING, contents)
        self._stage.rename(_PENDING, archive.diff_id)
        return make_manifest(archive.diff_id, archive.tell())

    def _layout(self) -> Manifest:
        layout = Layout(self._path, self._limits)
        manifest = layout.read(self._tag)
        architecture = manifest.config.get("architecture", "")
        if architecture and architecture != host_architecture():
            self.warnings.append(f"the image is for {architecture}, this machine is {host_architecture()}")
        present = self._stage.pin(manifest.chain_ids)
        missing = [index for index, chain_id in enumerate(manifest.chain_ids) if chain_id not in present]
        progress = Progress(self._callback, sum(manifest.layers[index].size for index in missing))
        for index in missing:
            progress.what = f"layer {index + 1} of {len(manifest.layers)}"
            self._layer(layout, manifest, index, progress)
        return manifest

    def _layer(self, layout: Layout, manifest: Manifest, index: int, progress: Progress) -> None:
        descriptor, chain_id = manifest.layers[index], manifest.chain_ids[index]
        source = f"{self._path}: layer {descriptor.digest[:19]}"
        with layout.open_layer(descriptor) as file:
            packed = Packed(file, progress)
            archive = Archive(Unpacked(packed, source), self._budget, source)
            contents = self._unpack(chain_id, archive, manifest.chain_ids[:index])
        for what, is_, should_be in (
            ("its bytes are", packed.digest, descriptor.digest),
            ("unpacked it is", archive.diff_id, manifest.diff_ids[index]),
        ):
            if is_ != should_be:
                raise ImageError(f"{source} is damaged: {what} {is_}, not {should_be}", "copy the layout again")
        self._keep(chain_id, contents)

    def _unpack(self, chain_id: str, archive: Archive, below: tuple[str, ...]) -> Contents:
        with ExitStack() as stack:
            root = _open_directory(self._stage.make(chain_id), stack)
            trees = [self._stage.tree(under) or self._layers.tree(under) for under in reversed(below)]
            layers = Below([_open_directory(tree, stack) for tree in trees])
            return unpack(archive, root, layers, self._budget, self._path)

    def _keep(self, chain_id: str, contents: Contents) -> None:
        self._stage.describe(chain_id, Layer(contents.size_bytes, contents.entries))
        self.warnings += contents.warnings


def _open_directory(path: str, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _open_regular(path: str) -> BinaryIO:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ImageError(f"cannot import {path}: it is neither a directory nor a regular file")
    return open(fd, "rb", buffering=0)


def _check_is_root(contents: Contents, path: str) -> None:
    """`docker save` writes a tarball too, but one of layers: taken for a root it would fail much later."""
    if contents.top_names & {"oci-layout", "manifest.json"} and "usr" not in contents.top_names:
        raise ImageError(
            f"cannot import {path}: it is an archive of an image's layers, not of a root",
            f"`skopeo copy docker-archive:{path} oci:DIR` makes a layout that can be imported",
        )
    if not contents.top_names:
        raise ImageError(f"cannot import {path}: it is empty")
