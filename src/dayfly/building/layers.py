"""The steps that make layers: COPY, ADD, WORKDIR; and what every step that makes one has in common."""

import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from dayfly.building.copying import Item, Pieces, digest_of, entries_of, owned
from dayfly.building.ignoring import matches_any
from dayfly.building.placing import copied, parts_of
from dayfly.building.state import State
from dayfly.building.trees import Tree
from dayfly.building.users import owner_of
from dayfly.building.workshop import Workshop
from dayfly.committing import rfc3339
from dayfly.jobs.containerfile.instructions import Instruction
from dayfly.jobs.containerfile.lines import HereDocument
from dayfly.jobs.containerfile.words import expand
from dayfly.runtime.images.streams import Stream

_FILE, _DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755


def made(
    shop: Workshop, state: State, step: object, created_by: str, make: Callable[[State], str], now: Callable[[], float]
) -> State:
    """The state after a step that makes a layer: what it made before, if it was taken before, else what `make` makes.

    `make` is given the state with its history and gives the digest of the image.
    """
    following = state.after(step)
    known = shop.cache.find(following.key) if shop.request.has_cache else None
    if known is not None:
        done = following.with_history(known.created, created_by, has_layer=True)
        shop.say("    as before")
        return _based(shop, done, known.digest)
    created = rfc3339(now() if shop.epoch is None else shop.epoch)
    done = following.with_history(created, created_by, has_layer=True)
    return _based(shop, done, make(done))


def _based(shop: Workshop, state: State, digest: str) -> State:
    return replace(state, base=shop.pinned(digest).digest)


def copy(
    shop: Workshop, state: State, instruction: Instruction, tree: Tree, image: Tree, now: Callable[[], float]
) -> State:
    """COPY, and ADD of what is neither an archive nor a URL. Raises ContainerfileError, OSError."""
    *sources, destination = words_of(instruction, state)
    items = items_of(instruction, state, sources, destination, tree, image)
    step = ("COPY", destination, digest_of(items))
    shown = f"{instruction.name} {instruction.line.rest}"
    return made(shop, state, step, shown, lambda done: place(shop, state, done, items), now)


def items_of(
    instruction: Instruction, state: State, sources: Sequence[str], destination: str, tree: Tree, image: Tree
) -> list[Item]:
    """What comes of the sources, with the owner and mode that the flags say. Raises ContainerfileError, OSError."""
    line = instruction.line
    target = absolute(state, destination)
    documents = {f"<<{each.name}": each for each in instruction.documents}
    try:
        left_out = matches_any(instruction.repeated.get("exclude", ()))
        found = list(copied(tree, [each for each in sources if each not in documents], target, image, left_out))
        found += [_document(documents[each], target, state, line.escape) for each in sources if each in documents]
        return list(given(instruction, state, found, image))
    except ValueError as error:
        raise line.fault(str(error)) from error


def given(instruction: Instruction, state: State, items: Iterable[Item], image: Tree) -> Iterator[Item]:
    """The items as `--chown` and `--chmod` want them. Raises ValueError."""
    uid, gid = owner_of(expand_flag(instruction, "chown", state), image) if "chown" in instruction.flags else (0, 0)
    mode = _mode(expand_flag(instruction, "chmod", state)) if "chmod" in instruction.flags else None
    return owned(items, uid, gid, mode)


def place(shop: Workshop, before: State, after: State, items: Iterable[Item]) -> str:
    """The digest of the image with these files in a layer of their own."""
    return add(shop, before, after, Pieces(entries_of(items, shop.epoch)))


def add(shop: Workshop, before: State, after: State, changes: Stream) -> str:
    return shop.store.add(before.base, changes, after.config, step=after.key).image.digest


def make_directory(shop: Workshop, state: State, path: str, created_by: str, now: Callable[[], float]) -> State:
    """WORKDIR: a layer only where there is no such directory; it belongs to who USER says, as it does with Docker."""
    with shop.tree_of(state) as image:
        if image.resolve(path) is not None:
            return state.after(("WORKDIR", path)).with_history(_now(shop, now), created_by, has_layer=False)
        try:
            uid, gid = owner_of(state.user, image) if state.user else (0, 0)
        except ValueError:
            uid, gid = 0, 0  # a RUN will say that there is no such user
    items = [Item(parts_of(path), _DIRECTORY, uid, gid)]
    step = ("WORKDIR", path, uid, gid)
    return made(shop, state, step, created_by, lambda done: place(shop, state, done, items), now)


def _now(shop: Workshop, now: Callable[[], float]) -> str:
    return rfc3339(now() if shop.epoch is None else shop.epoch)


def words_of(instruction: Instruction, state: State) -> list[str]:
    """Sources and destination, variables expanded. Raises ContainerfileError."""
    line = instruction.line
    written = list(instruction.words) if instruction.words is not None else instruction.split()
    try:
        words = [each if each.startswith("<<") else expand(each, state.variables, line.escape) for each in written]
    except ValueError as error:
        raise line.fault(str(error)) from error
    names = {each.name for each in instruction.documents}
    words = [f"<<{_bare(each)}" if each.startswith("<<") and _bare(each) in names else each for each in words]
    if len(words) < 2:
        raise line.fault("it needs a source and a destination")
    return words


def _bare(word: str) -> str:
    return word.removeprefix("<<").removeprefix("-").strip("'\"")


def expand_flag(instruction: Instruction, name: str, state: State) -> str:
    """The value of a flag, variables expanded. Raises ValueError."""
    return expand(instruction.flags[name], state.variables, instruction.line.escape)


def absolute(state: State, path: str) -> str:
    """A path of the image, without `.` and `..`; one that is a directory's by its form ends with a slash."""
    is_directory = path in ("", ".", "..") or path.endswith(("/", "/.", "/.."))
    plain = "/" + posixpath.normpath(posixpath.join(state.directory, path)).lstrip("/")
    return f"{plain.rstrip('/')}/" if is_directory else plain


def _mode(text: str) -> int:
    if not text or set(text) - set("01234567") or len(text) > 4:
        raise ValueError(f"--chmod={text!r} is no octal mode such as 755")
    return int(text, 8)


def _document(document: HereDocument, target: str, state: State, escape: str) -> Item:
    text = document.content if document.is_literal else _expanded(document.content, state, escape)
    place = (*parts_of(target), document.name.encode()) if target.endswith("/") else parts_of(target)
    return Item(place, _FILE, text=text.encode())


def _expanded(text: str, state: State, escape: str) -> str:
    """A here-document: variables are expanded, quotes stay."""
    quoted = text.replace('"', f'{escape}"').replace("'", f"{escape}'") if text else text
    return expand(quoted, state.variables, escape)
