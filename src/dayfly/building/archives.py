"""ADD: as COPY, but that archives of the context are unpacked, and that a source may be a URL."""

import hashlib
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from dayfly.building import layers
from dayfly.building.copying import Item, Pieces, digest_of, entries_of
from dayfly.building.placing import parts_of
from dayfly.building.state import State
from dayfly.building.trees import Tree
from dayfly.building.workshop import Workshop
from dayfly.jobs.containerfile.instructions import Instruction
from dayfly.runtime.images.budget import Budget
from dayfly.runtime.images.files import first_name
from dayfly.runtime.images.streams import Archive, Packed, Progress, Unpacked
from dayfly.runtime.images.unpack import entries

_LARGEST = 8 << 30
_CHUNK_BYTES = 1 << 20
_BLOCK = 512
_REPLACED = frozenset(("path", "linkpath", "size", "GNU.sparse.name"))


@dataclass(frozen=True, slots=True)
class _Part:
    """What comes of one source: what the step's key has of it, and its entries."""

    key: object
    entries: Callable[[], Iterator[bytes]]


def add(shop: Workshop, state: State, instruction: Instruction, image: Tree, now: Callable[[], float]) -> State:
    """Raises ContainerfileError, OSError."""
    line = instruction.line
    *sources, destination = layers.words_of(instruction, state)
    if any(_is_repository(each) for each in sources):
        raise line.fault("repositories are not supported", "clone it, and COPY it from the context")
    if not any(_is_url(each) or _is_archive(shop.context, each) for each in sources):
        return layers.copy(shop, state, instruction, shop.context, image, now)
    if len(sources) > 1 and not layers.absolute(state, destination).endswith("/"):
        raise line.fault("with several sources the destination must end with a slash")
    parts = [_part(shop, state, instruction, each, destination, image) for each in sources]

    def make(done: State) -> str:
        return layers.add(shop, state, done, Pieces(*(part.entries() for part in parts)))

    step = ("ADD", destination, [part.key for part in parts])
    return layers.made(shop, state, step, f"ADD {line.rest}", make, now)


def _part(shop: Workshop, state: State, instruction: Instruction, source: str, destination: str, image: Tree) -> _Part:
    if _is_url(source):
        if not shop.rules.may_fetch:
            why = "a build of the queue fetches nothing itself"
            raise instruction.line.fault(why, "fetch it in a RUN, which has a network")
        items = _fetched(shop, state, instruction, source, destination, image)
    elif _is_archive(shop.context, source):
        return _unpacked(shop, state, source, destination)
    else:
        items = layers.items_of(instruction, state, [source], destination, shop.context, image)
    return _Part(digest_of(items), lambda: entries_of(items, shop.epoch))


def _fetched(
    shop: Workshop, state: State, instruction: Instruction, url: str, destination: str, image: Tree
) -> list[Item]:
    """A file of mode 600, root's, as Docker has it. Its content is in the key: the URL is asked each time."""
    path = shop.scratch_file()
    digest = _fetch(instruction, url, path)
    wanted = instruction.flags.get("checksum")
    if wanted is not None and wanted != f"sha256:{digest}":
        raise instruction.line.fault(f"{url}: its checksum is sha256:{digest}, not {wanted}")
    target = layers.absolute(state, destination)
    name = posixpath.basename(urlsplit(url).path)
    if target.endswith("/") and not name:
        raise instruction.line.fault(f"{url} ends in no name", "give the file one: the destination without a slash")
    where = (*parts_of(target), os.fsencode(name)) if target.endswith("/") else parts_of(target)
    item = Item(where, stat.S_IFREG | 0o600, size=os.stat(path).st_size, content=lambda: os.open(path, os.O_RDONLY))
    try:
        return list(layers.given(instruction, state, [item], image))
    except ValueError as error:
        raise instruction.line.fault(str(error)) from error


def _fetch(instruction: Instruction, url: str, path: str) -> str:
    digest, size = hashlib.sha256(), 0
    try:
        with httpx2.stream("GET", url, follow_redirects=True, timeout=60.0) as answer, open(path, "wb") as file:
            if not answer.is_success:
                raise instruction.line.fault(f"{url} answers {answer.status_code}")
            for piece in answer.iter_bytes(_CHUNK_BYTES):
                size += len(piece)
                if size > _LARGEST:
                    raise instruction.line.fault(f"{url} has more than {_LARGEST >> 30} GiB")
                digest.update(piece)
                file.write(piece)
    except httpx2.HTTPError as error:
        raise instruction.line.fault(f"cannot fetch {url}: {str(error) or type(error).__name__}") from error
    return digest.hexdigest()


def _unpacked(shop: Workshop, state: State, source: str, destination: str) -> _Part:
    """What the archive holds, below the destination, with the owners that stand in it."""
    path = shop.context.resolve(source)
    assert path is not None  # it was looked into before
    with open(shop.context.open(path), "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    prefix = b"/".join(parts_of(layers.absolute(state, destination))).decode(errors="surrogateescape")

    def moved() -> Iterator[bytes]:
        with open(shop.context.open(path), "rb", buffering=0) as file:
            budget = Budget(shop.store.limits, source)
            archive = Archive(Unpacked(Packed(file, Progress(None, None)), source), budget, source)
            yield from _moved(archive, prefix, source)

    return _Part(("archive", digest), moved)


def _moved(archive: Archive, prefix: str, source: str) -> Iterator[bytes]:
    """Its entries, each of them below another directory."""
    for entry in entries(archive, source):
        # As text: an entry that would lead out of the directory lands at its top.
        entry.name = f"{prefix}/{posixpath.normpath('/' + entry.name).lstrip('/')}".strip("/") or "./"
        if entry.islnk():
            entry.linkname = f"{prefix}/{posixpath.normpath('/' + entry.linkname).lstrip('/')}".strip("/")
        kept = {name: value for name, value in entry.pax_headers.items() if name not in _REPLACED}
        entry.pax_headers = {name: value for name, value in kept.items() if not name.startswith("GNU.sparse.")}
        sparse = getattr(entry, "sparse", None)
        if entry.isreg():
            entry.type = tarfile.REGTYPE
        yield entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
        if entry.isreg():
            yield from _content(archive, [(0, entry.size)] if sparse is None else sparse, entry.size)
            yield bytes(-entry.size % _BLOCK)


def _content(archive: Archive, extents: Sequence[tuple[int, int]], size: int) -> Iterator[bytes]:
    """A file's bytes, of which the archive has these extents; the others are zero."""
    position = 0
    for offset, length in [*extents, (size, 0)]:
        while position < offset:
            position += (gap := min(offset - position, _CHUNK_BYTES))
            yield bytes(gap)
        while position < offset + length:
            piece = archive.take(min(offset + length - position, _CHUNK_BYTES))
            position += len(piece)
            yield piece


def _is_repository(source: str) -> bool:
    is_remote = source.startswith(("git@", "git://", "ssh://")) or _is_url(source)
    return is_remote and (not _is_url(source) or urlsplit(source).path.endswith(".git"))


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def _is_archive(tree: Tree, source: str) -> bool:
    """Whether it is a tarball, plain or packed: by what is in it, as Docker tells it."""
    path = tree.resolve(source)
    facts = None if path is None else tree.look(path)
    if path is None or facts is None or not stat.S_ISREG(facts.st_mode):
        return False
    with open(tree.open(path), "rb", buffering=0) as file:
        return first_name(file) is not None
