"""How an image came about, as its configuration tells it (image-spec, config.md, "history")."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dayfly.runtime.images.layers import Layers
from dayfly.runtime.images.manifest import Manifest, told_history
from dayfly.runtime.images.store import ImageStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, the newest first. `layer` is its layer's diff id, None where it made none; `size_bytes` unpacked."""

    created: str
    created_by: str
    comment: str
    layer: str | None
    size_bytes: int


def history(store: ImageStore, reference: str) -> list[Step]:
    """All steps. Raises ImageNotFound, ImageError."""
    return list(_steps(store.named(reference), store.layers))[::-1]


def inspect(store: ImageStore, reference: str) -> dict[str, Any]:
    """What is known of an image, for a machine. Raises ImageNotFound, ImageError."""
    manifest = store.named(reference)
    layers = [
        {"digest": layer.digest, "diff_id": diff_id, "size_bytes": store.layers.size_bytes(chain_id)}
        for layer, diff_id, chain_id in zip(manifest.layers, manifest.diff_ids, manifest.chain_ids, strict=True)
    ]
    names = [name for name, digest in store.names.all().items() if digest == manifest.digest]
    return {"digest": manifest.digest, "names": names, "layers": layers, "configuration": dict(manifest.config)}


def _steps(manifest: Manifest, layers: Layers) -> Iterator[Step]:
    rest = iter(zip(manifest.diff_ids, manifest.chain_ids, strict=True))
    for each in told_history(manifest):
        own = None if each.get("empty_layer") else next(rest, None)
        words = {name: _text(each, name) for name in ("created", "created_by", "comment")}
        yield Step(**words, layer=own and own[0], size_bytes=layers.size_bytes(own[1]) if own else 0)


def _text(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    return value if isinstance(value, str) else ""
