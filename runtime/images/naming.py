"""Further names of images of a store, and by which of them a digest is known there."""

from dayfly.runtime.images.reference import Kind, canonical, parse, repository_of
from dayfly.runtime.images.store import ImageStore


def tag(store: ImageStore, reference: str, name: str) -> str:
    """Give an image another name; returns its digest. Raises ImageNotFound, ImageError."""
    name = canonical(name)
    with store.layers.staging.locked(exclusive=True):
        digest = store.named(reference).digest
        store.names.give(name, digest)
    return digest


def is_called(store: ImageStore, reference: str) -> bool:
    """Whether a digest is that of an image of the same repository here; true for what is not pinned to one."""
    parsed = parse(reference)
    if parsed.kind is not Kind.DIGEST or not parsed.name:
        return True
    return store.names.is_called(repository_of(parsed.name), parsed.digest)
