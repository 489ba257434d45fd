"""One import: tell what a source is, unpack its layers beside the store, say under which manifest they belong.

Nothing of it can be seen in the store before `ImageStore` places it.
"""

import os
from contextlib import ExitStack

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.ahead import Ahead
from dayfly.runtime.images.budget import Budget, ImportLimits
from dayfly.runtime.images.canonical import canonical
from dayfly.runtime.images.files import ArchiveFiles, DirectoryFiles, is_of_layers, open_regular
from dayfly.runtime.images.layered import LayeredImport, LayerSource
from dayfly.runtime.images.layers import Layers, Stage
from dayfly.runtime.images.layout import Layout, is_layout, split_source
from dayfly.runtime.images.manifest import Manifest, make_manifest
from dayfly.runtime.images.saved import SavedImage
from dayfly.runtime.images.streams import Archive, Packed, Progress, ProgressCallback, Unpacked
from dayfly.runtime.images.treetar import TreeTar
from dayfly.runtime.images.unpack import Contents
from dayfly.runtime.images.unpacker import Unpacker

_PENDING = "sha256:pending"


class RootImport:
    """A root file system, a directory or a tarball, that becomes an image of one layer."""

    def __init__(
        self, source: str, layers: Layers, stage: Stage, limits: ImportLimits, callback: ProgressCallback | None
    ) -> None:
        self._path = source
        self._stage = stage
        self._limits = limits
        self._callback = callback
        self._unpacker = Unpacker(layers, stage, Budget(limits, source))
        self.warnings = self._unpacker.warnings

    def run(self) -> Manifest:
        """Unpack it as one layer, and return the image's manifest. Raises ImageError, OSError."""
        return self._directory() if os.path.isdir(self._path) else self._tarball()

    def _tarball(self) -> Manifest:
        with ExitStack() as stack:
            file = stack.enter_context(open_regular(self._path))
            progress = Progress(self._callback, os.fstat(file.fileno()).st_size)
            progress.what = os.path.basename(self._path)
            stream = stack.enter_context(Ahead(Unpacked(Packed(file, progress), self._path)))
            archive = Archive(stream, self._unpacker.budget, self._path)
            contents = self._unpacker.unpack(archive, _PENDING, (), self._path)
        if not archive.last_block:
            raise ImageError(f"{self._path}: the archive has no end mark", "is the file complete?")
        return self._single(contents)

    def _directory(self) -> Manifest:
        with ExitStack() as stack:
            progress = Progress(self._callback, None)
            progress.what = self._path
            tree = TreeTar(_open_directory(self._path, stack), self._path, progress, self._limits.depth)
            archive = Archive(tree, self._unpacker.budget, self._path)
            contents = self._unpacker.unpack(archive, _PENDING, (), self._path)
        self.warnings += [f"left out {count} {what}" for what, count in sorted(tree.left_out.items())]
        return self._single(contents)

    def _single(self, contents: Contents) -> Manifest:
        """One layer, named by what it is and not by how it came: the same root is the same image."""
        _check_is_root(contents, self._path)
        self._unpacker.keep(_PENDING, contents)
        made = canonical(self._stage.tree(_PENDING) or "")
        self._stage.rename(_PENDING, made.diff_id)
        return make_manifest(made.diff_id, made.size)


def import_from(
    source: str, layers: Layers, stage: Stage, limits: ImportLimits, callback: ProgressCallback | None
) -> tuple[Manifest, list[str]]:
    """Unpack what is missing of the image at `source`, a path, perhaps with `:TAG`; its manifest, and warnings.

    Raises ImageError, OSError.
    """
    path, tag = split_source(source)
    with ExitStack() as stack:
        found = _layered(path, tag, stage, limits, stack)
        if found is not None:
            layered = LayeredImport(found, layers, stage, limits, callback)
            return layered.run(), layered.warnings
    if tag:
        raise ImageError(f"cannot import {path}:{tag}: {path} holds no images with tags")
    root = RootImport(path, layers, stage, limits, callback)
    return root.run(), root.warnings


def _layered(path: str, tag: str, stage: Stage, limits: ImportLimits, stack: ExitStack) -> LayerSource | None:
    """A source of layers, if that is what lies there."""
    try:
        if os.path.isdir(path):
            return Layout(DirectoryFiles(path), tag, limits) if is_layout(path) else None
        with open_regular(path) as file:
            if not is_of_layers(file):
                return None
    except OSError as error:
        raise ImageError(f"cannot import {path}: {error.strerror}") from error
    files = stack.enter_context(ArchiveFiles(path, stage.scratch(), limits))
    return Layout(files, tag, limits) if files.has("index.json") else SavedImage(files, tag, limits)


def _open_directory(path: str, stack: ExitStack) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _check_is_root(contents: Contents, path: str) -> None:
    if not contents.top_names:
        raise ImageError(f"cannot import {path}: it is empty")
