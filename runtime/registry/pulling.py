"""Brings an image of a registry into the store, once, however many ask for it at the same time."""

from dayfly.jobs.errors import ImageError, ImageNotFound
from dayfly.runtime.images.image import Imported
from dayfly.runtime.images.manifest import Manifest
from dayfly.runtime.images.reference import Kind, parse, repository_of
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry.address import parse_address
from dayfly.runtime.registry.pull import LayerProgress, Pull
from dayfly.runtime.registry.settings import RegistrySettings


def pull(
    store: ImageStore,
    reference: str,
    settings: RegistrySettings,
    progress: LayerProgress | None = None,
    *,
    only_if_missing: bool = False,
    platform: str | None = None,
) -> Imported:
    """Pull what `reference` names ("alpine", "ghcr.io/x/y:tag", "x@sha256:…"), unless it is there and that is enough.

    Layers that the store has are not fetched again. Raises ImageError.
    """
    parsed = parse(reference)
    if parsed.kind not in (Kind.NAME, Kind.DIGEST) or not parsed.name:
        raise ImageError(f"{reference!r} is no image of a registry", "[REGISTRY/]NAME[:TAG][@DIGEST]")
    address = parse_address(reference)
    with store.alone_with(str(address)):
        if only_if_missing:
            try:
                return Imported(image=store.resolve(reference))
            except ImageNotFound:
                pass
        with Pull(address, settings, store.limits, store.packed, progress, platform) as source:

            def names(manifest: Manifest) -> list[str]:
                """A name that was pinned stays what it was: only the digest, which leads to the manifest, is new."""
                own = [] if parsed.kind is Kind.DIGEST else [parsed.name]
                for digest in (source.digest, manifest.digest):
                    store.names.call(repository_of(parsed.name), digest)
                pins = [source.digest] if source.digest != manifest.digest or not own else []
                return own + pins

            return store.take(source, names)
