"""The images of this host, under DAYFLY_HOME/images, which only its owner may enter.

    blobs/, refs/            manifests, configurations and names          (names.py)
    layers/, staging/, lock  unpacked layers, and the places of imports    (layers.py)
    host.json                the current skeleton of the image `host`      (host.py)

Who may do what at the same time. A job keeps its layers by its record, which lists their paths. Between choosing the
layers and writing that record the agent holds the store:

    with store.hold():                     # shared lock: no layer goes
        image = store.resolve("debian:12")
        ...                                # write and rename the record that names image.layers
    # from here on in_use() finds them

`remove` and `sweep` take the exclusive lock, call `in_use()` under it, take away every layer that neither a name nor
`in_use` mentions, and delete them after the lock is free. So `in_use` must read the records afresh at each call, those
of warm keepers included, and must not call the store. An import unpacks in a staging directory without the lock, pins
there what it finds in the store already, and takes the exclusive lock only to place its layers and give the name.
Within `hold` neither `import_` nor `remove` may be called: they would wait for the holder.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterator

from dayfly.jobs.errors import ImageError, ImageNotFound
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.host import HostImage
from dayfly.runtime.images.image import DIRECTORY, Entry, Image, Imported, read_config
from dayfly.runtime.images.importing import Import
from dayfly.runtime.images.layers import Layers, Stage
from dayfly.runtime.images.manifest import Manifest
from dayfly.runtime.images.names import Names
from dayfly.runtime.images.reference import HOST, Kind, Reference, canonical, parse
from dayfly.runtime.images.streams import ProgressCallback
from dayfly.runtime.staging import delete
from dayfly.runtime.syscalls import syncfs

InUse = Callable[[], Collection[str]]


class ImageStore:
    """The store below `home`; made when it is not there. One object serves any number of calls of one thread."""

    def __init__(self, home: str | os.PathLike[str], limits: ImportLimits | None = None) -> None:
        self._home = os.path.abspath(home)
        self._root = os.path.realpath(f"{self._home}/images")  # no link to a layer is followed when it is mounted
        self._limits = limits or ImportLimits()
        _make_private(self._root)
        self._names = Names(self._root)
        self._layers = Layers(self._root)
        self._host = HostImage(self._root, self._layers)
        self._known: dict[str, Image] = {}

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """While the body runs no layer is taken away."""
        with self._layers.staging.locked(exclusive=False):
            yield

    def resolve(self, reference: str) -> Image:
        """The image that `reference` means here and now.

        Raises ImageNotFound, or ImageError for what is no reference or no longer whole.
        """
        parsed = parse(reference)
        if parsed.kind is Kind.HOST:
            return self._host.resolve()
        if parsed.kind is Kind.DIRECTORY:
            return self._in_place(parsed.path)
        digest = parsed.digest or self._names.digest(parsed.name)
        image = self._stored(digest, parsed.name or digest) if digest else None
        if image is None:
            raise ImageNotFound(reference, self._remedy(parsed))
        return image

    def import_(self, source: str, name: str, progress: ProgressCallback | None = None) -> Imported:
        """Import a directory, a tarball of a root, or an OCI layout (`DIR` or `DIR:TAG`) under `name`.

        Nothing is left when it fails. Raises ImageError.
        """
        name = canonical(name)
        try:
            with self._layers.stage() as stage:
                run = Import(os.path.abspath(source), self._layers, stage, self._limits, progress)
                manifest = run.run()
                self._place(manifest, name, stage)
        except OSError as error:
            raise ImageError(f"cannot import {source}: {error.strerror}: {error.filename or self._root}") from error
        image = self._stored(manifest.digest, name)
        assert image is not None  # its reference was written a moment ago
        return Imported(image=image, warnings=tuple(run.warnings))

    def ls(self) -> tuple[Entry, ...]:
        """All images by name; an image that lost its name to a newer one is listed by its digest."""
        entries = []
        for name, digest in self._names.all().items():
            manifest = self._manifest(digest, name)
            size = sum(self._layers.about(chain_id).size_bytes for chain_id in manifest.chain_ids)
            created = self._names.created(name)
            entries.append(
                Entry(name=name, digest=digest, created=created, size_bytes=size, layers=len(manifest.layers))
            )
        return tuple(entries)

    def remove(self, reference: str, in_use: InUse) -> int:
        """Take the name away, and with it every layer that nothing else needs; returns the bytes freed.

        A digest takes all names of that image. Layers in `in_use()` stay until a later `sweep`. Raises ImageNotFound.
        """
        parsed = parse(reference)
        if parsed.kind not in (Kind.NAME, Kind.DIGEST):
            raise ImageError(f"{reference!r} is not in the store, so it cannot be removed from it")
        with self._layers.staging.locked(exclusive=True):
            names = self._names.all()
            chosen = [parsed.name] if parsed.kind is Kind.NAME else [n for n, d in names.items() if d == parsed.digest]
            if not chosen or chosen[0] not in names:
                raise ImageNotFound(reference, self._remedy(parsed))
            for name in chosen:
                self._names.forget(name)
        return self.sweep(in_use)

    def sweep(self, in_use: InUse) -> int:
        """Delete what no name and no job needs, and what dead imports left; returns the bytes freed.

        `in_use` gives the absolute paths of the layers that jobs and warm keepers use; called under the lock.
        """
        with self._layers.staging.locked(exclusive=True):
            manifests = [self._manifest(digest, name) for name, digest in self._names.all().items()]
            blobs = {digest for manifest in manifests for digest in manifest.blobs}
            needed = {chain_id for manifest in manifests for chain_id in manifest.chain_ids}
            needed |= self._layers.pinned() | {self._host.layer() or ""}
            used = set(in_use())
            unneeded = [layer for layer in self._layers.known() - needed if self._layers.tree(layer) not in used]
            freed = sum(self._layers.size_bytes(layer) for layer in unneeded)
            freed += self._names.delete_blobs_except(blobs)
            for layer in unneeded:
                self._layers.take_away(layer)
            leftovers = self._layers.staging.leftovers()
        self._known.clear()
        delete(leftovers)
        return freed

    def _place(self, manifest: Manifest, name: str, stage: Stage) -> None:
        """Put an import's layers and name into the store."""
        fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)  # a layer is never looked at again: after a power cut its files must not be empty
            with self._layers.staging.locked(exclusive=True):
                for chain_id in manifest.chain_ids:
                    stage.place(chain_id)
                self._names.keep(manifest)
                self._names.give(name, manifest.digest)
            syncfs(fd)
        finally:
            os.close(fd)

    def _stored(self, digest: str, name: str) -> Image | None:
        image = self._known.get(digest)
        if image is None:
            manifest = self._names.manifest(digest)
            if manifest is None:
                return None
            layers = tuple(self._layers.tree(chain_id) for chain_id in reversed(manifest.chain_ids))
            config = read_config(manifest.config, f"image {name}")
            image = self._known[digest] = Image(name=name, digest=digest, layers=layers, config=config)
        for layer in image.layers:
            if not os.path.isdir(layer):
                self._known.pop(digest, None)
                if self._names.manifest(digest) is None:
                    return None
                raise ImageError(f"image {name}: its layer {layer} is missing", "import the image again")
        return (
            image if image.name == name else Image(name=name, digest=digest, layers=image.layers, config=image.config)
        )

    def _manifest(self, digest: str, name: str) -> Manifest:
        manifest = self._names.manifest(digest)
        if manifest is None:
            raise ImageError(f"image {name}: its manifest {digest} is missing", "import the image again")
        return manifest

    def _in_place(self, path: str) -> Image:
        real = os.path.realpath(path)
        try:
            is_directory = stat.S_ISDIR(os.stat(real).st_mode)
        except OSError as error:
            raise ImageNotFound(path, f"{path}: {error.strerror}") from error
        if not is_directory:
            raise ImageNotFound(
                path, f"it is a file, not a directory; `dayfly image import {path} NAME` makes an image"
            )
        home = os.path.realpath(self._home)
        if os.path.commonpath((real, home)) in (real, home):
            raise ImageError(f"{path} cannot be an image: it lies in {home}, or around it", "copy it elsewhere")
        return Image(name=path, digest=f"{DIRECTORY}{real}", layers=(real,))

    def _remedy(self, reference: Reference) -> str:
        from difflib import get_close_matches

        names = self._names.all()
        if reference.name in names:
            return f"{reference.name} is {names[reference.name]} now"
        near = get_close_matches(reference.name or reference.digest, [*names, HOST], 3, 0.6)
        hint = f"did you mean {' or '.join(near)}? Else " if near else ""
        return (
            f"{hint}`dayfly image import SOURCE {reference.name or 'NAME'}` brings one in, `dayfly image ls` lists them"
        )


def _make_private(root: str) -> None:
    """Nobody but the owner may enter: setuid programs of images lie below (CVE-2021-41091)."""
    os.makedirs(root, 0o700, exist_ok=True)
    if os.stat(root).st_mode & 0o077:
        os.chmod(root, 0o700)
