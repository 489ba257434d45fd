"""The unpacked layers of the store, and the places where they are made.

    layers/<id>/tree         the layer in overlay's form; <id> is its OCI ChainID (of a bottom layer, its diff id)
    layers/<id>/layer.json   its size and number of entries
    staging/<token>/<id>/    the same, while an import makes it    (staging.py)
    staging/<token>/pin-<id> the import builds on this layer of the store: a sweep must leave it
    staging/<token>/image-<digest>  likewise, of an image with all its layers: a build goes on upon it

A layer's name covers all that lies below it, because its tree may: parents that its archive left out are made like
those below, whiteouts are written only for what is there. It appears by one rename and is never changed.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from dayfly.jobs.errors import ImageError
from dayfly.runtime.staging import Staging

_PIN, _PACKED_PIN, _IMAGE_PIN = "pin-", "packed-", "image-"


@dataclass(frozen=True, slots=True)
class Layer:
    """What is known of a layer without walking it."""

    size_bytes: int
    entries: int


class Layers:
    """The layers below the store's directory `root`."""

    def __init__(self, root: str) -> None:
        self._layers = f"{root}/layers"
        self.staging = Staging(root)
        os.makedirs(self._layers, 0o700, exist_ok=True)

    def tree(self, chain_id: str) -> str:
        """The absolute path of the layer's tree, whether it is there or not."""
        return f"{self._layers}/{_hex(chain_id)}/tree"

    def has(self, chain_id: str) -> bool:
        return os.path.isdir(self.tree(chain_id))

    def about(self, chain_id: str) -> Layer:
        """Raises ImageError when the layer is not there."""
        path = f"{self._layers}/{_hex(chain_id)}/layer.json"
        try:
            with open(path, encoding="utf-8") as file:
                return Layer(**json.load(file))
        except (OSError, ValueError, TypeError) as error:
            raise ImageError(f"cannot read {path}: {error}", "import the image again") from error

    def size_bytes(self, chain_id: str) -> int:
        """The layer's size, 0 when that is not known any more."""
        try:
            return self.about(chain_id).size_bytes
        except ImageError:
            return 0

    def known(self) -> set[str]:
        """The ids of all layers."""
        return {"sha256:" + name for name in os.listdir(self._layers)}

    @contextlib.contextmanager
    def stage(self) -> Iterator["Stage"]:
        """A place for new layers, deleted at the end with whatever has not been placed."""
        with self.staging.stage() as path:
            yield Stage(path, self)

    def pinned(self) -> set[str]:
        """The layers that imports of this moment build on. Needs the exclusive lock."""
        names = [name for path in self.staging.in_the_making() for name in os.listdir(path)]
        return {"sha256:" + name.removeprefix(_PIN) for name in names if name.startswith(_PIN)}

    def images_pinned(self) -> set[str]:
        """The digests of images that builds of this moment go on upon. Needs the exclusive lock."""
        names = [name for path in self.staging.in_the_making() for name in os.listdir(path)]
        return {"sha256:" + name.removeprefix(_IMAGE_PIN) for name in names if name.startswith(_IMAGE_PIN)}

    def packed_pinned(self) -> set[str]:
        """The digests of packed layers that imports of this moment bring. Needs the exclusive lock."""
        names = [name for path in self.staging.in_the_making() for name in os.listdir(path)]
        return {"sha256:" + name.removeprefix(_PACKED_PIN) for name in names if name.startswith(_PACKED_PIN)}

    def take_away(self, chain_id: str) -> None:
        """Take a layer out of the store; it is deleted with the staging area's leftovers. Needs the exclusive lock."""
        self.staging.take_away(f"{self._layers}/{_hex(chain_id)}")


class Stage:
    """Layers in the making, below a directory of one import's own."""

    def __init__(self, path: str, layers: Layers) -> None:
        self._path = path
        self._layers = layers

    def pin(self, chain_ids: Iterable[str]) -> set[str]:
        """Those of the layers that the store has; they stay there as long as this stage does."""
        with self._layers.staging.locked(exclusive=False):
            present = {chain_id for chain_id in chain_ids if self._layers.has(chain_id)}
            for chain_id in present:
                open(f"{self._path}/{_PIN}{_hex(chain_id)}", "w").close()
        return present

    def pin_image(self, digest: str) -> None:
        """The image stays, if it is there, as long as this stage does."""
        with self._layers.staging.locked(exclusive=False):
            open(f"{self._path}/{_IMAGE_PIN}{_hex(digest)}", "w").close()

    def pin_packed(self, digests: Iterable[str]) -> None:
        """What comes of these packed layers stays as long as this stage does."""
        for digest in digests:
            open(f"{self._path}/{_PACKED_PIN}{_hex(digest)}", "w").close()

    def make(self, chain_id: str) -> str:
        """An empty tree for the layer; what a failed attempt left there is deleted."""
        directory = self._directory(chain_id)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(f"{directory}/tree", 0o755)
        return f"{directory}/tree"

    def describe(self, chain_id: str, layer: Layer) -> None:
        """Say what the layer holds: it is whole now."""
        with open(f"{self._directory(chain_id)}/layer.json", "w", encoding="utf-8") as file:
            json.dump(asdict(layer), file)

    def scratch(self) -> str:
        """Where a file may be for as long as this import takes."""
        return f"{self._path}/scratch"

    def rename(self, chain_id: str, new_chain_id: str) -> None:
        """Give a staged layer the name that was known only once it was unpacked."""
        os.rename(self._directory(chain_id), self._directory(new_chain_id))

    def tree(self, chain_id: str) -> str | None:
        """The tree of a layer that is staged here and whole."""
        directory = self._directory(chain_id)
        return f"{directory}/tree" if os.path.exists(f"{directory}/layer.json") else None

    def place(self, chain_id: str) -> None:
        """Move a layer into the store unless it is there.

        Needs the store's lock, shared at least, until a reference to the layer is written.
        """
        if not self._layers.has(chain_id):
            with contextlib.suppress(FileExistsError):  # another import was faster; rename(2) takes only an empty one
                _rename(self._directory(chain_id), os.path.dirname(self._layers.tree(chain_id)))

    def _directory(self, chain_id: str) -> str:
        return f"{self._path}/{_hex(chain_id)}"


def _rename(source: str, target: str) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise FileExistsError(error.errno, error.strerror, target) from error


def _hex(chain_id: str) -> str:
    return chain_id.removeprefix("sha256:")
