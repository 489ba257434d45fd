"""Layers crafted to be misread: each is refused with a reason or made harmless, and nothing is written outside.

What stands here in one table is what tar archives, and what unpacks them, have been broken with (A1 to A6, D9).
The controls of these rows are in tests/runtime/images.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.store import ImageStore

_HOST = "{host}"  # in a name: the path of a directory of the host
_EVIL = b"evil"
_CHECKSUM = slice(148, 156)
_SIZE = slice(124, 136)


@dataclass(frozen=True)
class Layer:
    """Writes itself with a TarMaker; `refused` is what the import's complaint says, None where it is made harmless."""

    name: str
    write: Callable[[Any], Any]
    refused: str | None = None
    below: Callable[[Any], Any] | None = None


def _header(name: str, kind: bytes, size: bytes, content: bytes = b"") -> bytes:
    """A header no library would write: `size` is the field's own bytes."""
    entry = tarfile.TarInfo(name)
    entry.type = kind
    raw = bytearray(entry.tobuf(tarfile.USTAR_FORMAT))
    raw[_SIZE] = size.ljust(12, b"\0")
    raw[_CHECKSUM] = b" " * 8
    raw[_CHECKSUM] = f"{sum(raw):06o}\0 ".encode()
    return bytes(raw) + content.ljust(-len(content) % 512 + len(content), b"\0")


def _octal(size: int) -> bytes:
    return f"{size:011o}".encode()


def _pax(*records: tuple[bytes, bytes], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header of these records, whatever they say."""
    text = b""
    for key, value in records:
        body = b" " + key + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        text += str(length).encode() + body
    return _header("pax", kind, _octal(len(text)), text)


_FILE = _header("canary", tarfile.REGTYPE, _octal(4), _EVIL)
_END = bytes(1024)

LAYERS = [
    # names
    Layer("parent", lambda t: t.file("../canary", _EVIL)),
    Layer("many-parents", lambda t: t.file("../" * 40 + "canary", _EVIL)),
    Layer("absolute", lambda t: t.file("{host}/canary", _EVIL)),
    Layer("absolute-parent", lambda t: t.file("/../../canary", _EVIL)),
    Layer("parent-in-the-middle", lambda t: t.file("a/b/../../../../canary", _EVIL)),
    Layer("doubled-slashes", lambda t: t.file("//{host}//canary", _EVIL)),
    Layer("root-of-parent", lambda t: t.directory("../", mode=0o777).directory("..", mode=0o777)),
    Layer("symlink-at-parent", lambda t: t.symlink("../canary", "/etc/passwd")),
    Layer("fifo-at-parent", lambda t: t.add("../canary", tarfile.FIFOTYPE)),
    Layer("hard-link-at-parent", lambda t: t.file("x", _EVIL).hard_link("../canary", "x")),
    Layer("nul-in-path", lambda t: _pax((b"path", b"canary\0/../x")) + _FILE + _END, "holds a NUL"),
    Layer("global-path", lambda t: _pax((b"path", b"../canary"), kind=tarfile.XGLTYPE) + _FILE + _END),
    Layer("long-part", lambda t: t.file("n" * 300), "File name too long"),
    Layer("long-path", lambda t: t.file("/".join(["d" * 200] * 30)), "longer than a path may be"),
    Layer("deep-path", lambda t: t.file("d/" * 300 + "x"), "more than 256 parts"),
    Layer("root-is-a-link", lambda t: t.symlink(".", "{host}"), "root is not a directory"),
    Layer("root-is-a-file", lambda t: t.file("./", _EVIL), "root is not a directory"),
    # Symlinks as parents.
    Layer("up", lambda t: t.symlink("up", "..").file("up/canary", _EVIL)),
    Layer("up-to-root", lambda t: t.symlink("up", "/").file("up{host}/canary", _EVIL)),
    Layer("up-to-host", lambda t: t.symlink("up", "{host}").file("up/canary", _EVIL)),
    Layer("chained", lambda t: t.symlink("a", "b").symlink("b", "c").symlink("c", "..").file("a/canary", _EVIL)),
    Layer("dot-dot-through-a-link", lambda t: t.symlink("a/b", "a/..").file("a/b/../../canary", _EVIL)),
    Layer("proc-root", lambda t: t.symlink("p", "/proc/self/root").file("p{host}/canary", _EVIL)),
    Layer("proc-cwd", lambda t: t.symlink("p", "/proc/self/cwd").file("p/canary", _EVIL)),
    Layer("turns-into-a-link", lambda t: t.file("d/x").symlink("d", "{host}").file("d/canary", _EVIL)),
    Layer("of-the-layer-below", lambda t: t.file("up/canary", _EVIL), below=lambda t: t.symlink("up", "{host}")),
    Layer("loop", lambda t: t.symlink("a", "b").symlink("b", "a").file("a/x"), "symlinks without end"),
    Layer("loop-below", lambda t: t.file("a/x"), "symlinks without end", lambda t: t.symlink("a", "a")),
    Layer("file-as-parent", lambda t: t.file("f").file("f/x"), "used as a directory"),
    Layer("fifo-as-parent", lambda t: t.add("f", tarfile.FIFOTYPE).file("f/x"), "used as a directory"),
    # Writing through what is there.
    Layer("through-a-link", lambda t: t.symlink("l", "{host}/canary").file("l", _EVIL)),
    Layer("through-a-hard-link", lambda t: t.symlink("l", "{host}/canary").hard_link("m", "l").file("m", _EVIL)),
    Layer("directory-over-a-link", lambda t: t.symlink("l", "{host}").directory("l", mode=0o777).file("l/canary")),
    Layer("fifo-over-a-link", lambda t: t.symlink("l", "{host}/canary").add("l", tarfile.FIFOTYPE, mode=0o777)),
    # Hard links.
    Layer("hard-link-out", lambda t: t.hard_link("stolen", "../../canary"), "is no file in the image"),
    Layer("hard-link-to-host", lambda t: t.hard_link("stolen", "{host}/canary"), "is no file in the image"),
    Layer("hard-link-through-a-link", lambda t: t.symlink("o", "{host}").hard_link("s", "o/canary"), "is no file"),
    Layer("hard-link-to-a-directory", lambda t: t.directory("d").hard_link("s", "d"), "is no file in the image"),
    Layer("hard-link-to-the-root", lambda t: t.hard_link("s", "/"), "is no file in the image"),
    Layer("hard-link-to-itself", lambda t: t.file("a", _EVIL).hard_link("a", "a")),
    Layer(
        "hard-link-to-a-whiteout",
        lambda t: t.file(".wh.x", b"").hard_link("s", "x"),
        "is no file in the image",
        lambda t: t.file("x"),
    ),
    # Whiteouts.
    Layer("whiteout-of-nothing", lambda t: t.file(".wh.", b""), "whiteout of nothing", lambda t: t.file("x")),
    Layer("whiteout-of-itself", lambda t: t.file(".wh..", b""), "whiteout of nothing", lambda t: t.file("x")),
    Layer("whiteout-of-the-parent", lambda t: t.file("d/.wh...", b""), "whiteout of nothing", lambda t: t.file("d/x")),
    Layer("whiteout-outside", lambda t: t.file("../.wh.canary", b""), below=lambda t: t.file("x")),
    Layer(
        "whiteout-through-a-link", lambda t: t.symlink("u", "{host}").file("u/.wh.canary"), below=lambda t: t.file("x")
    ),
    Layer(
        "opaque-through-a-link", lambda t: t.symlink("u", "{host}").file("u/.wh..wh..opq"), below=lambda t: t.file("x")
    ),
    Layer("whiteout-as-a-parent", lambda t: t.file(".wh.x/.wh.y"), "whiteout of nothing", lambda t: t.file("x/y")),
    Layer("aufs-links", lambda t: t.file(".wh..wh.plnk/1.2", _EVIL)),
    # Devices, attributes, owners, times.
    Layer(
        "devices",
        lambda t: t.add("sda", tarfile.BLKTYPE, devmajor=8).add("mem", tarfile.CHRTYPE, devmajor=1, devminor=1),
    ),
    Layer("ready-made-whiteout", lambda t: t.add("x", tarfile.CHRTYPE), below=lambda t: t.file("x")),
    Layer("redirect", lambda t: t.directory("d", pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"})),
    Layer("metacopy", lambda t: t.file("f", pax_headers={"SCHILY.xattr.trusted.overlay.metacopy": ""})),
    Layer("user-opaque", lambda t: t.directory("d", pax_headers={"SCHILY.xattr.user.overlay.opaque": "y"})),
    Layer(
        "label", lambda t: t.file("f", pax_headers={"SCHILY.xattr.security.selinux": "system_u:object_r:shadow_t:s0"})
    ),
    Layer(
        "long-attribute", lambda t: t.file("f", pax_headers={"SCHILY.xattr.user." + "n" * 300: "x"}), "cannot unpack"
    ),
    Layer("nameless-attribute", lambda t: t.file("f", pax_headers={"SCHILY.xattr.user.": "x"}), "cannot unpack"),
    Layer("owner-of-a-billion", lambda t: t.file("f", uid=1 << 31, gid=(1 << 32) - 1)),
    Layer("time-without-end", lambda t: t.file("f", pax_headers={"mtime": "9" * 30})),
    Layer("time-that-is-none", lambda t: _pax((b"mtime", b"nan")) + _FILE + _END),
    # Sizes and damage.
    Layer("size-below-zero", lambda t: _header("f", tarfile.REGTYPE, b"\xff" * 12) + _END, "impossible size"),
    Layer(
        "size-of-exbibytes",
        lambda t: _header("f", tarfile.REGTYPE, b"\x80" + b"\x7f" * 11) + _END,
        "more than 1048576 bytes",
    ),
    Layer(
        "size-over-the-limit",
        lambda t: _header("f", tarfile.REGTYPE, _octal(1 << 32)) + _END,
        "more than 1048576 bytes",
    ),
    Layer("size-by-pax", lambda t: _pax((b"size", b"-5")) + _FILE + _END, "impossible size"),
    Layer(
        "size-that-is-none", lambda t: _pax((b"size", b"four")) + _FILE + _END, "not a tar|damaged|ends in the middle"
    ),
    Layer("cut-in-a-file", lambda t: _header("f", tarfile.REGTYPE, _octal(9000), b"x" * 4000), "ends in the middle"),
    Layer("cut-in-a-header", lambda t: _FILE + _FILE[:300], "damaged|not a tar"),
    Layer("damaged-header", lambda t: _FILE + b"\x01" * 512 + _END, "damaged header"),
    Layer(
        "endless-pax", lambda t: _header("p", tarfile.XHDTYPE, _octal(1 << 32)) + _END, "header of an entry takes more"
    ),
    Layer("endless-long-name", lambda t: _header("p", tarfile.GNUTYPE_LONGNAME, _octal(1 << 32)) + _END, "takes more"),
    Layer("sparse-beyond", lambda t: _sparse(b"1\n9999999999999\n5\n") + _END, "impossible size"),
    Layer("sparse-before", lambda t: _sparse(b"1\n-512\n5\n") + _END, "impossible size"),
    Layer("unknown-type", lambda t: _header("f", b"Z", _octal(4), _EVIL) + _END),
    Layer("volume", lambda t: _header("{host}", b"V", _octal(0)) + _header("c", b"M", _octal(4), _EVIL) + _END),
    Layer(
        "directory-with-content", lambda t: _header("d/", tarfile.DIRTYPE, _octal(4), _EVIL) + _FILE + _END, "damaged"
    ),
    Layer("no-archive", lambda t: b"#!/bin/sh\nrm -rf /\n" * 100, "not a tar|damaged"),
]


def _sparse(sparse_map: bytes) -> bytes:
    """A file in pax sparse format 1.0, whose map stands before its content."""
    records = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"100"))
    return _pax(*records, (b"GNU.sparse.name", b"canary")) + _header(
        "s", b"0", _octal(517), sparse_map.ljust(517, b"\0")
    )


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host with a canary, as full of attributes as its parent lets it be."""
    host = tmp_path / "host"
    host.mkdir()
    (host / "canary").write_bytes(b"the host's")
    (tmp_path / "canary").write_bytes(b"the host's")
    return host


@pytest.mark.attack("A1")
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_a_hostile_layer_is_refused_or_harmless(
    layer: Layer, host: Path, home: Path, tar: Any, layout: Any, snapshot: Any, tmp_path: Path
) -> None:
    """What is outside of the layer stays as it was; what is in it is of a kind that no kernel obeys."""
    store = ImageStore(home, ImportLimits(bytes=1 << 20))
    below = [_archive(layer.below, tar, host)] if layer.below else []
    source = layout.index(layout.image([*below, _archive(layer.write, tar, host)]))
    before = _outside(snapshot, tmp_path)
    if layer.refused is None:
        layers = [Path(path) for path in store.import_(source, "image").image.layers]
    else:
        with pytest.raises(ImageError, match=layer.refused):
            store.import_(source, "image")
        layers = []
        assert [os.listdir(home / "images" / name) for name in ("staging", "layers", "refs")] == [[], [], []]
    assert _outside(snapshot, tmp_path) == before
    assert not Path("/canary").exists()
    for path in (found for top in layers for found in [top, *top.rglob("*")]):
        _is_inert(path)


def _archive(write: Callable[[Any], Any], tar: Any, host: Path) -> bytes:
    """`{host}` becomes the host's directory in whatever TarMaker is told."""

    class Maker(tar):  # type: ignore[misc]  # the fixture is a class
        def add(self, name: str, *arguments: Any, **fields: Any) -> Any:
            if "linkname" in fields:
                fields["linkname"] = fields["linkname"].replace(_HOST, str(host))
            return super().add(name.replace(_HOST, str(host)), *arguments, **fields)

    made = write(Maker())
    return made if isinstance(made, bytes) else bytes(made.bytes())


def _outside(snapshot: Any, tmp_path: Path) -> Any:
    """All beside the store, and what is in the store beside the layers."""
    return snapshot(tmp_path / "host"), (tmp_path / "canary").read_bytes(), sorted(os.listdir(tmp_path))


def _is_inert(path: Path) -> None:
    status = os.lstat(path)
    if stat.S_ISCHR(status.st_mode):
        assert status.st_rdev == 0, f"{path} is a device"
    assert not stat.S_ISBLK(status.st_mode)
    names = set(os.listxattr(path, follow_symlinks=False))
    assert {name for name in names if name.startswith(("trusted.", "security.", "user.overlay."))} <= {
        "trusted.overlay.opaque"
    }


@pytest.mark.attack("D9")
def test_what_stands_behind_an_archive_is_not_passed_over(tar: Any, store: ImageStore, tmp_path: Path) -> None:
    """Two readers that end in different places would see two layers."""
    (tmp_path / "r.tar").write_bytes(gzip.compress(tar().file("f").bytes()) + b"#!/bin/sh\n")
    with pytest.raises(ImageError, match="other bytes behind its gzip stream"):
        store.import_(str(tmp_path / "r.tar"), "image")
