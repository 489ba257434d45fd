"""Layers that no one thought of: whatever the bytes, an import ends as an image or as an ImageError.

DAYFLY_FUZZ_EXAMPLES says how many (default 300 of each kind; 100000 is some ten minutes).
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.store import ImageStore

_MANY = settings(
    max_examples=int(os.environ.get("DAYFLY_FUZZ_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_PART = st.sampled_from(["a", "b", "c", "..", ".", "", "up", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh.", "é", "\udcff"])
_NAME = st.builds("{}{}".format, st.sampled_from(["", "/", "./", "../"]), st.lists(_PART, max_size=4).map("/".join))
_TARGET = _NAME | st.sampled_from(["/", "..", "/etc/hostname", "../../canary", "/proc/self/cwd", "a", "up"])
_KIND = st.sampled_from([
    tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
])  # fmt: skip
_ENTRY = st.tuples(_KIND, _NAME, _TARGET, st.integers(0, 0o7777))
_ENTRIES = st.lists(_ENTRY, max_size=12)


@pytest.fixture
def importing(tmp_path: Path, layout: Any) -> Any:
    """Imports layers into a store of their own; afterwards nothing lies beside it, and it holds what it says."""
    (tmp_path / "canary").write_bytes(b"the host's")

    def run(*tars: bytes) -> None:
        home = tmp_path / "home"
        store = ImageStore(home, ImportLimits(bytes=1 << 20, entries=1000))
        source = layout.index(layout.image(tars))
        try:
            for layer in store.import_(source, "image").image.layers:
                _is_of_known_kinds(Path(layer))
        except ImageError:
            assert os.listdir(home / "images/staging") == []
        assert sorted(os.listdir(tmp_path)) == ["canary", "home", "layout"]
        assert (tmp_path / "canary").read_bytes() == b"the host's"
        shutil.rmtree(home)
        for blob in (layout.path / "blobs/sha256").iterdir():
            blob.unlink()

    return run


def _is_of_known_kinds(layer: Path) -> None:
    for directory, names, files in os.walk(os.fsencode(layer)):
        for name in [*names, *files]:
            status = os.lstat(os.path.join(directory, name))
            assert not stat.S_ISBLK(status.st_mode)
            assert not stat.S_ISCHR(status.st_mode) or status.st_rdev == 0


@_MANY
@given(layers=st.lists(_ENTRIES, min_size=1, max_size=3))
def test_entries_in_any_order(importing: Any, tar: Any, layers: list[list[tuple[bytes, str, str, int]]]) -> None:
    """Names, links, marks and types that fight each other, upon layers of the same."""
    importing(*(_written(tar, entries) for entries in layers))


def _written(tar: Any, entries: list[tuple[bytes, str, str, int]]) -> bytes:
    archive = tar()
    for kind, name, target, mode in entries:
        content = b"content" if kind == tarfile.REGTYPE else b""
        archive.add(name, kind, content, linkname=target, mode=mode)
    return bytes(archive.bytes())


@_MANY
@given(data=st.data())
def test_archives_with_bytes_changed(importing: Any, tar: Any, data: st.DataObject) -> None:
    """A few bytes of headers that were right, with the header's checksum made right again or not."""
    archive = bytearray(_archive(tar))
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(archive) - 1), st.integers(0, 255)), max_size=8)):
        archive[at] = value
    if data.draw(st.booleans()):
        for start in range(0, len(archive), 512):
            _sum(archive, start)
    importing(bytes(archive[: data.draw(st.integers(0, len(archive)))]))


def _archive(tar: Any) -> bytes:
    """One of everything, in pax and GNU format."""
    headers = {"mtime": "1.5", "SCHILY.xattr.user.a": "b", "GNU.sparse.map": "0,1,5,1", "GNU.sparse.size": "9"}
    made = b""
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        one = tar(format=form).directory("d").file("d/" + "n" * 120, b"content", pax_headers=headers)
        entries = one.symlink("d/l", "t" * 120).hard_link("d/h", "d/" + "n" * 120).file("f").bytes().rstrip(b"\0")
        made += entries.ljust(-(-len(entries) // 512) * 512, b"\0")
    return made


def _sum(archive: bytearray, start: int) -> None:
    header = archive[start : start + 512]
    if header[257:262] == b"ustar":
        header[148:156] = b" " * 8
        archive[start + 148 : start + 156] = f"{sum(header):06o}\0 ".encode()


@_MANY
@given(raw=st.binary(max_size=2000))
def test_bytes_that_are_no_archive(importing: Any, raw: bytes) -> None:
    """Of any kind, and behind the beginnings of all packings."""
    for start in (b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", gzip.compress(b"x" * 512)):
        importing(start + raw)
