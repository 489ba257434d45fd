"""What a step made once it need not make again: the image that its key led to, if that is still there."""

from dataclasses import dataclass

from dayfly.runtime.images.store import ImageStore


@dataclass(frozen=True, slots=True)
class Made:
    digest: str
    created: str


class StepsCache:
    """Of one store."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    def find(self, key: str) -> Made | None:
        """What the step of this key made, if it is still there."""
        entry = self._store.steps.read(key)
        if entry is None:
            return None
        made = Made(entry["digest"], entry["created"])
        manifest = self._store.names.manifest(made.digest)
        if manifest is None or not all(map(self._store.layers.has, manifest.chain_ids)):
            return None
        return made
