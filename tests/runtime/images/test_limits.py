"""Image bombs: whatever a small archive claims, the import stops and nothing is left."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import resource
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.store import ImageStore

_MIB = 1 << 20


def _nothing_left(home: Path) -> None:
    assert os.listdir(home / "images/staging") == []
    assert os.listdir(home / "images/layers") == []
    assert os.listdir(home / "images/refs") == []


def _zstd(raw: bytes) -> bytes:
    zstd = pytest.importorskip("backports.zstd")
    return bytes(zstd.compress(raw))


@pytest.fixture
def bomb() -> bytes:
    """An archive of one file of 300 MiB of zeros: above the floor of 256 MiB below which no ratio is looked at."""
    buffer = io.BytesIO()
    entry = tarfile.TarInfo("zeros")
    entry.size = 300 * _MIB
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return buffer.getvalue()


@pytest.mark.attack("D9")
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, _zstd, lambda raw: lzma.compress(raw, preset=0)])
def test_a_bomb_is_refused_by_its_ratio(
    pack: Callable[[bytes], bytes], bomb: bytes, store: ImageStore, home: Path, tmp_path: Path
) -> None:
    """Every packing, without filling memory or disk, and with nothing left of it."""
    (tmp_path / "bomb.tar").write_bytes(pack(bomb))
    with pytest.raises(ImageError, match="unpacks to more than 200 times its size"):
        store.import_(str(tmp_path / "bomb.tar"), "bomb")
    _nothing_left(home)


@pytest.mark.control("D9")
def test_the_same_bomb_unpacks_without_the_limit(bomb: bytes, home: Path, tmp_path: Path) -> None:
    """The bomb is real (the negative control)."""
    (tmp_path / "bomb.tar").write_bytes(gzip.compress(bomb))
    store = ImageStore(home, ImportLimits(ratio=10_000))
    layer = Path(store.import_(str(tmp_path / "bomb.tar"), "bomb").image.layers[0])
    assert os.stat(layer / "zeros").st_size == 300 * _MIB


@pytest.mark.attack("D9")
def test_bytes_entries_and_depth_are_bounded(tar: Any, home: Path, tmp_path: Path) -> None:
    """Each limit by itself, by the name of what there is too much of."""
    store = ImageStore(home, ImportLimits(bytes=64 << 10, entries=10, depth=5))
    cases = {
        "more than 65536 bytes unpacked": tar().file("a", bytes(40_000)).file("b", bytes(20_000)).file("c", b""),
        "more than 10 files and directories": _many(tar(), 11),
        "more than 5 parts": tar().file("1/2/3/4/5/6"),
    }
    for what, archive in cases.items():
        (tmp_path / "r.tar").write_bytes(archive.bytes())
        with pytest.raises(ImageError, match=what):
            store.import_(str(tmp_path / "r.tar"), "image")
        _nothing_left(home)


def _many(archive: Any, count: int) -> Any:
    for index in range(count):
        archive.file(f"f{index}", b"")
    return archive


@pytest.mark.attack("D9")
def test_a_file_cannot_claim_more_than_there_may_be(tar: Any, store: ImageStore, home: Path, tmp_path: Path) -> None:
    """A pax size of 2^62, and a sparse file that claims it."""
    for headers in ({"size": str(1 << 62)}, {"GNU.sparse.size": str(1 << 62), "GNU.sparse.map": "0,1"}):
        (tmp_path / "r.tar").write_bytes(tar().file("big", b"x", pax_headers=headers).bytes())
        with pytest.raises(ImageError, match="past the limit"):
            store.import_(str(tmp_path / "r.tar"), "image")
        _nothing_left(home)


@pytest.mark.parametrize("size", ["-1", "-1024", "99999999999999999999999", "nan"])
def test_impossible_sizes_are_refused_at_once(tar: Any, store: ImageStore, tmp_path: Path, size: str) -> None:
    """Older tarfiles seek backwards for ever on a negative size (CVE-2025-8194)."""
    archive = tar().file("a", b"x" * 600, pax_headers={"size": size}).file("b").bytes()
    (tmp_path / "r.tar").write_bytes(archive)
    with pytest.raises(ImageError):
        store.import_(str(tmp_path / "r.tar"), "image")


@pytest.mark.attack("D9")
def test_a_header_cannot_fill_memory(store: ImageStore, home: Path, tmp_path: Path) -> None:
    """A pax header of 300 MiB, which tarfile would read at once, and sparse maps without end."""
    entry = tarfile.TarInfo("././@PaxHeader")
    entry.type, entry.size = tarfile.XHDTYPE, 300 * _MIB
    header = entry.tobuf(tarfile.USTAR_FORMAT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with gzip.open(tmp_path / "r.tar.gz", "wb", compresslevel=1) as file:
        file.write(header)
        for _ in range(300):
            file.write(bytes(_MIB))
    with pytest.raises(ImageError, match="header of an entry takes more than"):
        store.import_(str(tmp_path / "r.tar.gz"), "image")
    (tmp_path / "r.tar").write_bytes(_endless_sparse_map())
    with pytest.raises(ImageError, match="header of an entry takes more than"):
        store.import_(str(tmp_path / "r.tar"), "image")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10  # KiB
    _nothing_left(home)


def _endless_sparse_map() -> bytes:
    header = bytearray(tarfile.TarInfo("sparse").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[482] = 1  # isextended
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    block = (b"00000000001\x0000000000001\x00" * 21).ljust(504, b"\0") + b"\1" + bytes(7)
    return bytes(header) + block * 20_000


@pytest.mark.attack("D9")
def test_a_manifest_is_bounded(tar: Any, home: Path, layout: Any) -> None:
    """In bytes, in layers, in how deep its JSON goes."""
    store = ImageStore(home)
    one = tar().file("f").bytes()
    descriptor = layout.image([one])
    path = Path(layout.index({**descriptor, "size": 100 << 20}))
    with pytest.raises(ImageError, match="more than 4194304"):
        store.import_(str(path), "image")
    with pytest.raises(ImageError, match="10000 layers, more than 127"):
        store.import_(layout.index(layout.image([one] * 10_000)), "image")
    deep = layout.blob(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, descriptor["mediaType"])
    with pytest.raises(ImageError, match="not JSON"):
        store.import_(layout.index(deep), "image")
    (path / "index.json").write_text(json.dumps({"manifests": []}) + " " * (5 << 20))
    with pytest.raises(ImageError, match="more than 4194304 bytes"):
        store.import_(str(path), "image")
    _nothing_left(home)


def test_xz_cannot_ask_for_gigabytes(store: ImageStore, tmp_path: Path, tar: Any) -> None:
    """A dictionary of a gigabyte is refused by its header."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    small = lzma.compress(tar().file("f").bytes(), lzma.FORMAT_XZ, filters=filters)
    (tmp_path / "r.tar.xz").write_bytes(_with_dictionary(small))
    with pytest.raises(ImageError, match="xz stream is damaged: Memory usage limit"):
        store.import_(str(tmp_path / "r.tar.xz"), "image")


def _with_dictionary(stream: bytes) -> bytes:
    """The same stream, its block header saying 1 GiB (the xz file format, 3.1 and 5.3.1)."""
    size = (stream[12] + 1) * 4
    header = bytearray(stream[12 : 12 + size - 4])
    at = header.index(b"\x21\x01") + 2  # LZMA2's id, one byte of properties
    header[at] = 36  # 2^30
    return stream[:12] + bytes(header) + zlib.crc32(header).to_bytes(4, "little") + stream[12 + size :]
