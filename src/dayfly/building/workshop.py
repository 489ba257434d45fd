"""What the steps of one build share: the store, the context, the images of its stages, a way to run jobs."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dayfly.building.containerfiles import first_text
from dayfly.building.ignoring import Ignored
from dayfly.building.request import BuildRequest
from dayfly.building.state import State, scratch, state_of
from dayfly.building.steps_cache import StepsCache
from dayfly.building.trees import DirectoryTree, ImageTree, Tree
from dayfly.jobs.errors import ImageError, ImageNotFound
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec, PullPolicy
from dayfly.runtime.images.below import Below
from dayfly.runtime.images.manifest import Manifest
from dayfly.runtime.images.naming import is_called
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry.pulling import pull
from dayfly.runtime.registry.settings import RegistrySettings
from dayfly.runtime.removal import remove_tree
from dayfly.runtime.staging import Staging
from dayfly.runtime.syscalls import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from dayfly.worker.places import Places

_MOST_IGNORED = 64 << 10  # each line is tried on each path
_IGNORE_FILES = (".containerignore", ".dockerignore")


def _no_rule(_: str) -> None:
    return None


@dataclass(frozen=True)
class Rules:
    """What somebody else's build may not: `why_not` says why it may not have an image, None that it may; where it
    `is_restricted` a digest must be known by the name before it; `may_fetch`
    whether ADD may fetch, which happens beside all jobs, where no policy of their network holds. Caches are kept apart
    by `cache_scope`."""

    why_not: Callable[[str], str | None] = _no_rule
    is_restricted: bool = False
    may_fetch: bool = True
    cache_scope: str = ""


@dataclass
class Workshop:
    """A context manager. `run` runs one job to its end, its output for people to see; `say` tells them of a step."""

    store: ImageStore
    home: Path
    request: BuildRequest
    registries: RegistrySettings
    run: Callable[[JobSpec], Result]
    say: Callable[[str], None]
    epoch: int | None = None
    rules: Rules = Rules()
    stages: dict[str, State] = field(default_factory=dict)

    def __enter__(self) -> "Workshop":
        self._stack = ExitStack()
        self._pin = self._stack.enter_context(self.store.pinning())
        self._scratch = self._stack.enter_context(Staging(Places(self.home).builds).stage())
        self.cache = StepsCache(self.store)
        try:
            fd = os.open(self.request.context, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self._stack.close()
            raise ImageError(f"cannot build from {self.request.context}: {error.strerror}") from error
        self._stack.callback(os.close, fd)
        own = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
        self.context: Tree = DirectoryTree(fd, Ignored(first_text(fd, _IGNORE_FILES, _MOST_IGNORED, own) or ""))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def image(self, name: str) -> State:
        """An image as the base of a stage: of an earlier stage, of the store, of a registry. Raises ImageError."""
        if name == "scratch":
            return scratch()
        if name.lower() in self.stages:
            return self.stages[name.lower()]
        if (why := self.rules.why_not(name)) is not None:
            raise ImageError(why)
        is_doubtful = self.rules.is_restricted and not is_called(self.store, name)
        if is_doubtful and self.request.pull is PullPolicy.NEVER:
            raise ImageError(f"no image {name} is known here by that name")
        is_fresh = is_doubtful or self.request.pull is PullPolicy.ALWAYS
        if is_fresh or (self.request.pull is PullPolicy.MISSING and not self._is_here(name)):
            self.say(f"pulling {name}")
            pull(self.store, name, self.registries, only_if_missing=not is_fresh)
        return state_of(self.pinned(self.store.named(name).digest))

    def pinned(self, digest: str) -> Manifest:
        """An image of the store, which stays there as long as the build takes. Raises ImageNotFound."""
        return self._pin(digest)

    @contextmanager
    def tree_of(self, state: State) -> Iterator[ImageTree]:
        """The root of an image, to look at and to copy from; no layer of it goes meanwhile."""
        with self.layers_of(state) as layers:
            yield ImageTree(layers)

    @contextmanager
    def layers_of(self, state: State) -> Iterator[Below]:
        with ExitStack() as stack:
            fds = []
            for layer in self.store.resolve(state.base).layers if state.base else ():
                fds.append(os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                stack.callback(os.close, fds[-1])
            yield Below(fds)

    @contextmanager
    def scratch_directory(self) -> Iterator[str]:
        """A directory for one step."""
        path = tempfile.mkdtemp(dir=self._scratch)
        try:
            yield path
        finally:
            remove_tree(path)

    def scratch_file(self) -> str:
        """A file that goes with the build."""
        fd, path = tempfile.mkstemp(dir=self._scratch)
        os.close(fd)
        return path

    def _is_here(self, name: str) -> bool:
        try:
            self.store.named(name)
        except ImageNotFound:
            return False
        return True
