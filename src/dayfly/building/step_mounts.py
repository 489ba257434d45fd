"""`RUN --mount=…`: what a step is given beside its image, made as it begins, and gone when it has ended."""

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from dayfly.building.copying import Item, digest_of, items_below
from dayfly.building.layers import absolute
from dayfly.building.state import State, key_of
from dayfly.building.trees import Tree
from dayfly.building.workshop import Workshop
from dayfly.jobs.containerfile.instructions import Instruction
from dayfly.jobs.containerfile.mounts import StepMount, read_mount
from dayfly.jobs.containerfile.words import expand
from dayfly.jobs.mounts import TMPFS, Mount
from dayfly.jobs.units import parse_size
from dayfly.runtime.images.owners import on_disk
from dayfly.runtime.staging import is_still
from dayfly.worker.places import Places


class Held:
    """The caches that one step has, each once, whatever its mounts are; a context manager."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}

    def take(self, path: str, sharing: str) -> bool:
        """Hold a cache as its sharing asks; False when it is somebody else's. What prunes leaves it alone meanwhile."""
        while path not in self._files:
            os.makedirs(path, mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                how = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
                fcntl.flock(fd, how | (fcntl.LOCK_NB if sharing == "private" else 0))
            except BlockingIOError:
                os.close(fd)
                return False
            if is_still(fd, path):
                os.utime(path)
                self._files[path] = fd
            else:
                os.close(fd)  # it was pruned while we waited
        return True

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._files.values():
            os.close(fd)


# Makes one mount, in a directory of the step's.
_Maker = Callable[[str, Held], Mount]


@dataclass
class StepMounts:
    """What the step's key has of them, and how each is made."""

    key: list[object] = field(default_factory=list)
    makers: list[tuple[str, str, _Maker]] = field(default_factory=list)
    """Each with the name of its cache, if it has one, and its text."""

    @contextmanager
    def made(self, shop: Workshop, instruction: Instruction) -> Iterator[list[Mount]]:
        """As long as the step runs. Raises ContainerfileError."""
        with Held() as held, ExitStack() as stack:
            mounts = []
            # Caches in one order in all builds: two that wait for each other would wait for ever.
            for _, text, make in sorted(self.makers, key=lambda each: each[0]):
                with _blamed(instruction, text):
                    mounts.append(make(stack.enter_context(shop.scratch_directory()), held))
            yield mounts


def step_mounts(shop: Workshop, state: State, instruction: Instruction) -> StepMounts:
    """Those that an instruction names. Raises ContainerfileError."""
    found = StepMounts()
    for text in instruction.repeated.get("mount", ()):
        with _blamed(instruction, text):
            mount = _placed(read_mount(instruction, expand(text, state.variables, instruction.line.escape)), state)
            key, make = _KINDS[mount.kind](shop, mount)
            found.key.append(key)
            if make is not None:
                found.makers.append((str(key[1]) if mount.kind == "cache" else "", text, make))
    return found


@contextmanager
def _blamed(instruction: Instruction, text: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:
        raise instruction.line.fault(f"--mount={text[:100]}: {error}") from error


def _placed(mount: StepMount, state: State) -> StepMount:
    """With a target that is relative to the directory of the step."""
    if not mount.target:
        return mount
    return StepMount(mount.kind, {**mount.options, "target": absolute(state, mount.target).rstrip("/")})


def _cache(shop: Workshop, mount: StepMount) -> tuple[tuple[object, ...], _Maker]:
    """Kept from build to build. Shared by steps that run at one time, unless it is `locked`: then one waits for the
    other; one that is `private` and finds it in use has an empty one."""
    name = key_of("cache", shop.rules.cache_scope, mount.options.get("id") or mount.target)
    sharing = mount.options.get("sharing", "shared")

    def make(scratch: str, held: Held) -> Mount:
        path = f"{Places(shop.home).build_caches}/{name}"
        if not held.take(path, sharing):
            path = scratch
        os.chmod(path, int(mount.options.get("mode", "755"), 8))
        _give(path, mount)
        return Mount(path, mount.target, writable=not mount.is_on("ro"))

    return ("cache", name, mount.target), make


def _tmpfs(shop: Workshop, mount: StepMount) -> tuple[tuple[object, ...], _Maker]:
    size = mount.options.get("size")
    made = Mount(TMPFS, mount.target, size_bytes=parse_size(size) if size else None)
    return ("tmpfs", mount.target, size), lambda scratch, held: made


def _secret(shop: Workshop, mount: StepMount) -> tuple[tuple[object, ...], _Maker | None]:
    """Its value is in no key: who changes a secret does not change the step."""
    name = mount.options.get("id") or os.path.basename(mount.target)
    target = mount.target or f"/run/secrets/{name}"
    file = shop.request.secrets.get(name)
    if file is None:
        if mount.is_on("required"):
            raise ValueError(f"there is no secret {name!r}: --secret id={name},src=FILE gives it")
        return ("secret", name, target), None

    def make(scratch: str, held: Held) -> Mount:
        copy = os.path.join(scratch, "secret")
        shutil.copyfile(file, copy)
        os.chmod(copy, int(mount.options.get("mode", "400"), 8))
        _give(copy, mount)
        return Mount(copy, target)

    return ("secret", name, target), make


def _bind(shop: Workshop, mount: StepMount) -> tuple[tuple[object, ...], _Maker]:
    """A copy of what is in the context or in another image: what the step writes to it is nobody's."""
    source = mount.options.get("source", "/")
    with _tree(shop, mount) as tree:
        digest = digest_of(_items(tree, source))

    def make(scratch: str, held: Held) -> Mount:
        with _tree(shop, mount) as tree:
            where = _materialized(_items(tree, source), scratch)
        return Mount(where, mount.target, writable=mount.is_on("rw"))

    return ("bind", mount.target, digest), make


def _items(tree: Tree, source: str) -> list[Item]:
    path = tree.resolve(source)
    if path is None or tree.look(path) is None:
        raise ValueError(f"there is no {source!r}")
    return list(items_below(tree, path, (), lambda each: False))


def _tree(shop: Workshop, mount: StepMount) -> AbstractContextManager[Tree]:
    name = mount.options.get("from")
    return nullcontext(shop.context) if name is None else shop.tree_of(shop.image(name))


def _give(path: str, mount: StepMount) -> None:
    """To the owner that the step is to see."""
    os.chown(path, *on_disk(int(mount.options.get("uid", "0")), int(mount.options.get("gid", "0"))))


def _materialized(items: list[Item], top: str) -> str:
    """Writes the items below `top`; the path to mount: a single file is mounted itself."""
    for item in items:
        path = os.path.join(os.fsencode(top), *(item.target or (b"file",)))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if item.kind == stat.S_IFDIR:
            os.makedirs(path, exist_ok=True)
        elif item.kind == stat.S_IFLNK:
            os.symlink(item.text, path)
        elif item.content is not None:
            with open(item.content(), "rb") as source, open(path, "wb") as copy:
                shutil.copyfileobj(source, copy)
        if item.kind != stat.S_IFLNK:
            os.chmod(path, stat.S_IMODE(item.mode))
    is_file = len(items) == 1 and not items[0].target and items[0].kind == stat.S_IFREG
    return os.path.join(top, "file") if is_file else top


_KINDS: dict[str, Callable[[Workshop, StepMount], tuple[tuple[object, ...], _Maker | None]]] = {
    "cache": _cache,
    "tmpfs": _tmpfs,
    "secret": _secret,
    "bind": _bind,
}
