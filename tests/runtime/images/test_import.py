"""Sources of images: directories, tarballs in every packing, and what is none."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.store import ImageStore


def _zstd(raw: bytes) -> bytes:
    zstd = pytest.importorskip("backports.zstd")
    half = len(raw) // 2
    return bytes(zstd.compress(raw[:half]) + b"\x50\x2a\x4d\x18\x03\0\0\0abc" + zstd.compress(raw[half:]))


def _gzip_members(raw: bytes) -> bytes:
    half = len(raw) // 2
    return gzip.compress(raw[:half]) + gzip.compress(raw[half:]) + bytes(512)


@pytest.fixture
def root_tar(tar: Any) -> bytes:
    return bytes(tar().directory("usr").file("usr/f", os.urandom(3 << 20)).symlink("l", "usr/f").bytes())


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, _zstd, _gzip_members])
def test_every_packing_of_a_tarball_is_the_same_image(
    pack: Callable[[bytes], bytes], root_tar: bytes, store: ImageStore, tmp_path: Path
) -> None:
    """The layer is named by what it is; members, frames and padding make no difference."""
    (tmp_path / "r").write_bytes(pack(root_tar))
    image = store.import_(str(tmp_path / "r"), "image").image
    assert os.stat(Path(image.layers[0]) / "usr/f").st_size == 3 << 20
    (tmp_path / "plain").write_bytes(root_tar)
    assert store.import_(str(tmp_path / "plain"), "plain").image.digest == image.digest


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress, _zstd])
def test_a_tarball_cut_short_is_refused(
    pack: Callable[[bytes], bytes], root_tar: bytes, store: ImageStore, home: Path, tmp_path: Path
) -> None:
    """In the middle of its packing, of a file, or of its end mark alone; nothing is left."""
    packed = pack(root_tar)
    for cut in (len(packed) // 2, len(packed) - 3 if pack is not bytes else root_tar.index(b"usr/f") + 512):
        (tmp_path / "r").write_bytes(packed[:cut])
        with pytest.raises(ImageError, match=r"ends early|ends in the middle"):
            store.import_(str(tmp_path / "r"), "image")
    (tmp_path / "r").write_bytes(
        pack(root_tar.rstrip(b"\0").ljust(-(-len(root_tar.rstrip(b"\0")) // 512) * 512, b"\0"))
    )
    with pytest.raises(ImageError, match="no end mark"):
        store.import_(str(tmp_path / "r"), "image")
    assert os.listdir(home / "images/layers") == []
    assert os.listdir(home / "images/staging") == []


def test_a_damaged_header_is_not_taken_for_the_end(tar: Any, store: ImageStore, tmp_path: Path) -> None:
    """tarfile stops there without a word; half an image would be the result."""
    archive = bytearray(tar().file("a").file("b").bytes())
    archive[1024:1030] = b"\xff" * 6
    (tmp_path / "r.tar").write_bytes(archive)
    with pytest.raises(ImageError, match="damaged header"):
        store.import_(str(tmp_path / "r.tar"), "image")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a tar archive"),
        (b"hello" * 500, "not a tar archive"),
        (b"\x1f\x8b" + b"x" * 600, "gzip stream is damaged"),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 600, "zstd stream is damaged"),
        (bytes(10240), "it is empty"),
        (gzip.compress(bytes(1024)) + b"trailing", "other bytes behind its gzip stream"),
    ],
)
def test_what_is_no_tarball_says_so(content: bytes, message: str, store: ImageStore, tmp_path: Path) -> None:
    """Empty, text, damaged, without entries, with something behind it."""
    (tmp_path / "r").write_bytes(content)
    with pytest.raises(ImageError, match=message):
        store.import_(str(tmp_path / "r"), "image")


def test_what_is_no_source_says_so(store: ImageStore, tmp_path: Path, tar: Any) -> None:
    """Nothing at the path, a FIFO (without waiting for a writer), an archive of `docker save`."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "saved.tar").write_bytes(tar().file("manifest.json").directory("blobs").bytes())
    (tmp_path / "empty").mkdir()
    for name, message in {
        "missing": "No such file",
        "fifo": "neither a directory nor a regular file",
        "saved.tar": "manifest.json: not JSON",
        "empty": "it is empty",
        "empty:tag": "holds no images with tags",
    }.items():
        with pytest.raises(ImageError, match=message):
            store.import_(str(tmp_path / name), "image")


def _fill(root: Path) -> None:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_bytes(b"#!/bin/sh\n")
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/second")
    (root / "link").symlink_to("/etc/passwd")
    (root / "link-to-directory").symlink_to("/etc")
    os.mkfifo(root / "fifo", 0o640)
    (root / os.fsdecode(b"caf\xe9\n")).write_bytes(b"x")
    (root / "usr/owned").write_bytes(b"")
    os.chown(root / "usr/owned", 1000, 100)
    os.setxattr(root / "usr/owned", "user.note", b"\xff\0")
    os.setxattr(root / "usr/owned", "user.overlay.opaque", b"y")
    for path in [*root.rglob("*"), root]:
        os.utime(path, ns=(0, 1234567890123456789), follow_symlinks=False)


def test_a_directory_comes_in_as_it_is(store: ImageStore, tmp_path: Path, snapshot: Any) -> None:
    """Types, modes, owners, times, links, attributes and odd names, and no symlink is followed."""
    root = tmp_path / "root"
    _fill(root)
    image = store.import_(str(root), "image").image
    os.removexattr(root / "usr/owned", "user.overlay.opaque")
    assert snapshot(image.layers[0]) == snapshot(root)


def test_the_same_directory_has_the_same_digest(store: ImageStore, tmp_path: Path) -> None:
    """Wherever it lies and in whatever order its names are listed; a change of one byte changes it."""
    for name in ("one", "two"):
        _fill(tmp_path / name)
    first, second = (store.import_(str(tmp_path / name), name).image for name in ("one", "two"))
    assert first.digest == second.digest
    (tmp_path / "two/usr/bin/tool").write_bytes(b"#!/bin/sj\n")
    os.utime(tmp_path / "two/usr/bin/tool", ns=(0, 1234567890123456789))
    assert store.import_(str(tmp_path / "two"), "two").image.digest != first.digest


def test_sockets_devices_and_mounts_of_a_directory_are_left_out(
    store: ImageStore, tmp_path: Path, nothing_left: None
) -> None:
    """And told; the mount point itself is there, empty."""
    root = tmp_path / "root"
    (root / "proc").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "s"))
        os.mknod(root / "d", stat.S_IFCHR, os.makedev(1, 3))
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(root / "proc")], check=True)
        try:
            (root / "proc/inside").touch()
            imported = store.import_(str(root), "image")
        finally:
            subprocess.run(["umount", str(root / "proc")], check=True)
    assert os.listdir(imported.image.layers[0]) == ["proc"]
    assert os.listdir(Path(imported.image.layers[0]) / "proc") == []
    assert imported.warnings == ("left out 1 device nodes", "left out 1 mount points' contents", "left out 1 sockets")


def test_a_name_that_would_be_a_whiteout_is_told(store: ImageStore, tmp_path: Path) -> None:
    """A plain root has nothing below it to hide; a file of that name cannot be in an image (OCI image-spec)."""
    (tmp_path / "root").mkdir()
    for name in (".wh.x", "kept"):
        (tmp_path / "root" / name).touch()
    imported = store.import_(str(tmp_path / "root"), "image")
    assert os.listdir(imported.image.layers[0]) == ["kept"]
    assert imported.warnings == ("left out 1 whiteouts (.wh.*) with no layer below",)


def test_progress_is_told(root_tar: bytes, store: ImageStore, tmp_path: Path) -> None:
    """Bytes done rise to the size of the file, which is known from the start."""
    (tmp_path / "r.tar").write_bytes(root_tar)
    calls: list[tuple[int, int | None, str]] = []
    store.import_(str(tmp_path / "r.tar"), "image", lambda *call: calls.append(call))
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert calls[-1] == (len(root_tar), len(root_tar), "r.tar")


def test_a_full_disk_is_told_and_leaves_nothing(
    root_tar: bytes, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, nothing_left: None
) -> None:
    """The remedy says where space is needed."""
    home = tmp_path_factory.mktemp("small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(home)], check=True)
    try:
        (tmp_path / "r.tar").write_bytes(root_tar)
        with pytest.raises(ImageError, match=r"No space left on device.*free some space"):
            ImageStore(home).import_(str(tmp_path / "r.tar"), "image")
        assert os.listdir(home / "images/staging") == []
    finally:
        subprocess.run(["umount", str(home)], check=True)


@pytest.mark.slow
def test_a_real_debian_root_comes_in_unchanged(
    debian: Path, store: ImageStore, tmp_path: Path, snapshot: Any, need_tool: Callable[[str], str]
) -> None:
    """Compared with what tar(1) unpacks, all but device nodes; and again as a directory."""
    reference = tmp_path / "reference"
    reference.mkdir()
    unpack = [need_tool("tar"), "-C", str(reference), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"]
    subprocess.run([*unpack, str(debian)], check=True)
    imported = store.import_(str(debian), "debian:12")
    for device in [path for path in reference.joinpath("dev").iterdir() if stat.S_ISCHR(path.lstat().st_mode)]:
        device.unlink()
    os.utime(reference / "dev", ns=(0, os.lstat(Path(imported.image.layers[0]) / "dev").st_mtime_ns))
    wanted = snapshot(reference)
    assert snapshot(imported.image.layers[0]) == wanted
    assert imported.warnings == ("left out 8 device nodes",)
    assert snapshot(store.import_(str(reference), "debian:dir").image.layers[0]) == wanted
