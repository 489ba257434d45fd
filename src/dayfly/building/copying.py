"""Files on their way into a layer: found, hashed for the cache, and written as an archive."""

import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from dayfly.building.trees import Tree
from dayfly.runtime.images.below import Path

_CHUNK_BYTES = 1 << 20
_BLOCK = 512
_END = bytes(2 * _BLOCK)


@dataclass(frozen=True, slots=True)
class Item:
    """One file, directory or symlink: where it goes, what it is there, and its content.

    `content` opens it (a regular file), `text` is what it holds or links to. A time of None is the layer's own.
    """

    target: Path
    mode: int
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int | None = None
    content: Callable[[], int] | None = None
    text: bytes = b""

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)


def items_below(tree: Tree, source: Path, target: Path, is_left_out: Callable[[Path], bool]) -> Iterator[Item]:
    """The file at `source`, or all that the directory there holds, as they come to lie at `target`.

    Devices, FIFOs and sockets are passed over, as Docker does. Raises OSError.
    """
    facts = tree.look(source)
    if facts is None:
        return
    if not stat.S_ISDIR(facts.st_mode):
        item = _item(tree, source, target, facts)
        if item is not None:
            yield item
        return
    if target:
        yield Item(target, facts.st_mode, mtime_ns=facts.st_mtime_ns)
    for name in tree.names(source):
        inner = (*source, name)
        if not is_left_out(inner):
            yield from items_below(tree, inner, (*target, name), is_left_out)


def _item(tree: Tree, source: Path, target: Path, facts: os.stat_result) -> Item | None:
    if stat.S_ISLNK(facts.st_mode):
        return Item(target, facts.st_mode, text=tree.read_link(source), mtime_ns=facts.st_mtime_ns)
    if not stat.S_ISREG(facts.st_mode):
        return None
    opened = lambda: tree.open(source)  # noqa: E731
    return Item(target, facts.st_mode, size=facts.st_size, mtime_ns=facts.st_mtime_ns, content=opened)


def owned(items: Iterable[Item], uid: int, gid: int, mode: int | None) -> Iterator[Item]:
    """The same for another owner, and with other bits; those of symlinks stay."""
    for item in items:
        bits = item.mode if mode is None or item.kind == stat.S_IFLNK else item.kind | mode
        yield replace(item, uid=uid, gid=gid, mode=bits)


def digest_of(items: Sequence[Item]) -> str:
    """Of everything but times: the same files copied tomorrow are the same step. Raises OSError."""
    whole = hashlib.sha256()
    for item in items:
        facts = (b"/".join(item.target), oct(item.mode), item.uid, item.gid, item.text)
        whole.update(repr(facts).encode())
        whole.update(_content_digest(item) if item.content else b"")
    return whole.hexdigest()


def _content_digest(item: Item) -> bytes:
    with _opened(item) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _opened(item: Item):  # type: ignore[no-untyped-def]
    assert item.content is not None
    return open(item.content(), "rb")


class Pieces:
    """An archive in pieces, as `Archive` of streams.py reads it: those of `parts`, one after the other, and its end."""

    packed_bytes = 0

    def __init__(self, *parts: Iterable[bytes]) -> None:
        self._pieces = chain(*parts, (_END,))

    def read(self) -> bytes:
        gathered = bytearray()
        for piece in self._pieces:
            gathered += piece
            if len(gathered) >= _CHUNK_BYTES:
                break
        self.packed_bytes += len(gathered)
        return bytes(gathered)


def entries_of(items: Iterable[Item], latest_second: int | None) -> Iterator[bytes]:
    """The items as entries of an archive; none is younger than `latest_second`. Raises OSError."""
    latest_ns = None if latest_second is None else latest_second * 10**9
    for item in items:
        yield _header(item, latest_ns)
        if item.content is not None:
            yield from _content(item)
        elif item.kind == stat.S_IFREG:
            yield item.text + bytes(-len(item.text) % _BLOCK)


def _header(item: Item, latest_ns: int | None) -> bytes:
    entry = tarfile.TarInfo(os.fsdecode(b"/".join(item.target)))
    entry.type = _TYPES[item.kind]
    entry.mode, entry.uid, entry.gid = stat.S_IMODE(item.mode), item.uid, item.gid
    if item.kind == stat.S_IFLNK:
        entry.linkname = os.fsdecode(item.text)
    elif item.kind == stat.S_IFREG:
        entry.size = item.size if item.content is not None else len(item.text)
    mtime_ns = item.mtime_ns or 0
    if latest_ns is not None:
        mtime_ns = min(mtime_ns, latest_ns)
    entry.mtime = mtime_ns // 10**9
    if mtime_ns % 10**9:
        entry.pax_headers = {"mtime": f"{mtime_ns // 10**9}.{mtime_ns % 10**9:09}"}
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _content(item: Item) -> Iterator[bytes]:
    left = item.size
    with _opened(item) as file:
        while left:
            piece = file.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise OSError(f"{os.fsdecode(b'/'.join(item.target))} changed while it was copied")
            left -= len(piece)
            yield piece
    yield bytes(-item.size % _BLOCK)


_TYPES = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFREG: tarfile.REGTYPE, stat.S_IFLNK: tarfile.SYMTYPE}
