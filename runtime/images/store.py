"""The images of this host, under DAYFLY_HOME/images, which only its owner may enter.

    blobs/, refs/            manifests, configurations and names          (names.py)
    packed/                  layers as registries have them               (packed.py)
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
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from dayfly.jobs.errors import ImageError, ImageNotFound
from dayfly.runtime.images.adding import add_layer
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.host import HostImage
from dayfly.runtime.images.image import DIRECTORY, Entry, Image, Imported, read_config
from dayfly.runtime.images.importing import import_from
from dayfly.runtime.images.layered import LayeredImport, LayerSource
from dayfly.runtime.images.layers import Layers, Stage
from dayfly.runtime.images.manifest import Manifest, with_config
from dayfly.runtime.images.names import Names
from dayfly.runtime.images.packaged import PackagedImage, packaged
from dayfly.runtime.images.packed import PackedLayers
from dayfly.runtime.images.reference import HOST, Kind, Reference, canonical, is_digest, parse
from dayfly.runtime.images.steps import Steps
from dayfly.runtime.images.streams import ProgressCallback, Stream
from dayfly.runtime.staging import delete
from dayfly.runtime.syscalls import syncfs

_NOTED_SECONDS = 60.0

InUse = Callable[[], Collection[str]]


class ImageStore:
    """The store below `home`; made when it is not there. One object serves any number of calls of one thread."""

    def __init__(self, home: str | os.PathLike[str], limits: ImportLimits | None = None) -> None:
        self._home = os.path.abspath(home)
        self.root = os.path.realpath(f"{self._home}/images")  # no link to a layer is followed when it is mounted
        self.limits = limits or ImportLimits()
        _make_private(self.root)
        self.names = Names(self.root)
        self.layers = Layers(self.root)
        self.packed = PackedLayers(self.root)
        self.steps = Steps(self.root)
        self._host = HostImage(self.root, self.layers)
        self._known: dict[str, Image] = {}

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """While the body runs no layer is taken away."""
        with self.layers.staging.locked(exclusive=False):
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
        digest = self.names.digest(parsed.digest or parsed.name) or parsed.digest
        image = self._stored(digest, parsed.name or digest) if digest else None
        if image is None:
            raise ImageNotFound(reference, self._remedy(parsed))
        return image

    def import_(self, source: str, name: str, progress: ProgressCallback | None = None) -> Imported:
        """Import a directory, a tarball of a root, or an OCI layout (`DIR` or `DIR:TAG`) under `name`.

        Nothing is left when it fails. Raises ImageError.
        """
        name = canonical(name)
        with self._stage(f"import {source}") as stage:
            path = os.path.abspath(source)
            manifest, warnings = import_from(path, self.layers, stage, self.limits, progress)
            self._place(manifest, (name,), stage)
        return self._imported(manifest, name, warnings)

    def take(self, source: LayerSource, names: Callable[[Manifest], Collection[str]]) -> Imported:
        """Import what comes in layers under the names (or digests of indexes) that it turns out to have, at least one.

        Nothing is left when it fails. Raises ImageError.
        """
        with self._stage(f"take in {source.where}") as stage:
            layered = LayeredImport(source, self.layers, stage, self.limits)
            manifest = layered.run()
            given = names(manifest)
            self._place(manifest, given, stage)
        return self._imported(manifest, next(iter(given)), layered.warnings)

    def add(
        self, base: str | None, changes: Stream, config: Mapping[str, Any], name: str = "", step: str = ""
    ) -> Imported:
        """Put the image `base` (None: an empty one) with one layer more, and this configuration, into the store: under
        `name`, or as what the step of that key has made.

        Nothing is left when it fails. Raises ImageNotFound, ImageError.
        """
        where = base or "scratch"
        with self._stage(f"add a layer to {where}") as stage:
            parent = None if base is None else self.named(base)
            manifest, warnings = add_layer(parent, changes, config, self.layers, stage, self.limits, where)
            self._place(manifest, [canonical(name)] if name else [], stage, step)
        return self._imported(manifest, name or manifest.digest, warnings)

    def configure(self, base: str, config: Mapping[str, Any], name: str) -> Imported:
        """Give `name` to the layers of the image `base` with another configuration. Raises as `add`."""
        with self._stage(f"configure {base}") as stage:
            manifest = with_config(self.named(base), config, base)
            stage.pin(manifest.chain_ids)
            self._place(manifest, [canonical(name) if name else manifest.digest], stage)
        return self._imported(manifest, name or manifest.digest, ())

    @contextlib.contextmanager
    def pinning(self) -> Iterator[Callable[[str], Manifest]]:
        """A function that pins an image by its digest until the end, returns its manifest, and raises ImageNotFound."""
        with self._stage("pin images") as stage:

            def pin(digest: str) -> Manifest:
                stage.pin_image(digest)
                return self.named(digest)

            yield pin

    @contextlib.contextmanager
    def packaged(self, reference: str, progress: ProgressCallback | None = None) -> Iterator[PackagedImage]:
        """The image ready to leave this host. Raises ImageNotFound, ImageError."""
        manifest = self.named(reference)
        try:
            with packaged(manifest, self.layers, self.packed, progress) as image:
                yield image
        except OSError as error:
            raise ImageError(f"cannot pack {reference}: {error.strerror}: {error.filename or self.root}") from error

    @contextlib.contextmanager
    def alone_with(self, what: str) -> Iterator[None]:
        """Wait until nobody else is busy with the same image, and keep others waiting."""
        path = f"{self.root}/busy"
        os.makedirs(path, 0o700, exist_ok=True)
        bucket = hashlib.sha256(what.encode()).hexdigest()[:2]  # that two share one costs them a wait
        with open(f"{path}/{bucket}", "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def ls(self) -> tuple[Entry, ...]:
        """All images by name; an image that lost its name to a newer one is listed by its digest."""
        entries = []
        names = self.names.all()
        proper = {digest for name, digest in names.items() if not is_digest(name)}
        for name, digest in names.items():
            if is_digest(name) and digest in proper:
                continue  # a pinned job's way to it
            manifest = self._manifest(digest, name)
            size = sum(self.layers.about(chain_id).size_bytes for chain_id in manifest.chain_ids)
            created = self.names.created(name)
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
        with self.layers.staging.locked(exclusive=True):
            names = self.names.all()
            chosen = [parsed.name] if parsed.kind is Kind.NAME else [n for n, d in names.items() if d == parsed.digest]
            if not chosen or chosen[0] not in names:
                raise ImageNotFound(reference, self._remedy(parsed))
            for name in chosen:
                self.names.forget(name)
            self._forget_pins({names[name] for name in chosen})
        return self.sweep(in_use)

    def mark_used(self, reference: str) -> None:
        """A job runs on it: the least recently used go first."""
        parsed = parse(reference)
        for name in filter(None, (parsed.name, parsed.digest)) if parsed.kind in (Kind.NAME, Kind.DIGEST) else ():
            self.names.mark_used(name)

    def forget(self, name: str) -> None:
        """Take one name away; what it named goes with the next `sweep`, unless something else needs it."""
        with self.layers.staging.locked(exclusive=True):
            digest = self.names.digest(name)
            self.names.forget(name)
            if digest is not None:
                self._forget_pins({digest})

    def sweep(self, in_use: InUse) -> int:
        """Delete what no name and no job needs, and what dead imports left; returns the bytes freed.

        `in_use` gives the absolute paths of the layers that jobs and warm keepers use; called under the lock.
        """
        with self.layers.staging.locked(exclusive=True):
            manifests = [self._manifest(digest, name) for name, digest in self.names.all().items()]
            manifests += self.steps.manifests(self.names)
            manifests += filter(None, map(self.names.manifest, self.layers.images_pinned()))
            blobs = {digest for manifest in manifests for digest in manifest.blobs}
            needed = {chain_id for manifest in manifests for chain_id in manifest.chain_ids}
            needed |= self.layers.pinned() | {self._host.layer() or ""}
            used = set(in_use())
            unneeded = [layer for layer in self.layers.known() - needed if self.layers.tree(layer) not in used]
            freed = sum(self.layers.size_bytes(layer) for layer in unneeded)
            freed += self.names.delete_blobs_except(blobs)
            packed = {layer.digest for manifest in manifests for layer in manifest.layers}
            freed += self.packed.delete_except(packed | self.layers.packed_pinned())
            for layer in unneeded:
                self.layers.take_away(layer)
            leftovers = self.layers.staging.leftovers()
        self._known.clear()
        delete(leftovers)
        return freed

    def named(self, reference: str) -> Manifest:
        """The manifest of an image of the store. Raises ImageNotFound, ImageError."""
        parsed = parse(reference)
        if parsed.kind not in (Kind.NAME, Kind.DIGEST):
            raise ImageError(f"{reference!r} is not in the store", "`dayfly image import` it first")
        digest = self.names.digest(parsed.digest or parsed.name) or parsed.digest
        manifest = self.names.manifest(digest) if digest else None
        if manifest is None:
            raise ImageNotFound(reference, self._remedy(parsed))
        return manifest

    @contextlib.contextmanager
    def _stage(self, what: str) -> Iterator[Stage]:
        try:
            with self.layers.stage() as stage:
                yield stage
        except OSError as error:
            raise ImageError(f"cannot {what}: {error.strerror}: {error.filename or self.root}") from error

    def _imported(self, manifest: Manifest, name: str, warnings: Collection[str]) -> Imported:
        image = self._stored(manifest.digest, name)
        assert image is not None  # its reference was written a moment ago
        return Imported(image=image, warnings=tuple(warnings))

    def _forget_pins(self, digests: Collection[str]) -> None:
        """Forget the ways of pinned jobs to images that have no name any more. Needs the exclusive lock."""
        names = self.names.all()
        proper = {digest for name, digest in names.items() if not is_digest(name)}
        for name, digest in names.items():
            if digest in digests and digest not in proper:
                self.names.forget(name)

    def _place(self, manifest: Manifest, names: Collection[str], stage: Stage, step: str = "") -> None:
        """Put an import's layers and names into the store."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)  # a layer is never looked at again: after a power cut its files must not be empty
            with self.layers.staging.locked(exclusive=True):
                for chain_id in manifest.chain_ids:
                    stage.place(chain_id)
                self.names.keep(manifest)
                for name in names:
                    self.names.give(name, manifest.digest)
                if step:
                    created = str(manifest.config.get("created", ""))
                    self.steps.write(step, {"digest": manifest.digest, "created": created})
            syncfs(fd)
        finally:
            os.close(fd)

    def _stored(self, digest: str, name: str) -> Image | None:
        image = self._known.get(digest)
        if image is None:
            manifest = self.names.manifest(digest)
            if manifest is None:
                return None
            layers = tuple(self.layers.tree(chain_id) for chain_id in reversed(manifest.chain_ids))
            config = read_config(manifest.config, f"image {name}")
            image = self._known[digest] = Image(name=name, digest=digest, layers=layers, config=config)
        for layer in image.layers:
            if not os.path.isdir(layer):
                self._known.pop(digest, None)
                if self.names.manifest(digest) is None:
                    return None
                raise ImageError(f"image {name}: its layer {layer} is missing", "import the image again")
        return (
            image if image.name == name else Image(name=name, digest=digest, layers=image.layers, config=image.config)
        )

    def _manifest(self, digest: str, name: str) -> Manifest:
        manifest = self.names.manifest(digest)
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

        names = self.names.all()
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
