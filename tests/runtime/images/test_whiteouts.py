"""Layers over layers: what one hides of those below, seen through the kernel's overlay."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images import attributes
from dayfly.runtime.images.image import Image
from dayfly.runtime.images.places import Places

ImportLayers = Callable[..., Image]
Merged = Callable[[Image], Path]

pytestmark = pytest.mark.kernel


def _names(top: Path) -> set[str]:
    return {str(path.relative_to(top)) for path in top.rglob("*")}


@pytest.fixture
def base(tar: Any) -> bytes:
    """A bottom layer with files, directories and symlinked directories."""
    return bytes(
        tar()
        .directory("etc")
        .file("etc/a")
        .file("etc/b")
        .directory("usr/lib", mode=0o751, uid=9)
        .file("usr/lib/low", b"low")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr")
        .directory("tmp", mode=0o1777)
        .bytes()
    )


def test_a_whiteout_hides_a_file_and_a_directory(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged
) -> None:
    """`.wh.x` takes away what lower layers have, and shows up nowhere itself."""
    top = merged(import_layers(base, tar().file("etc/.wh.a", b"").file(".wh.usr", b"").bytes()))
    assert _names(top) == {"etc", "etc/b", "lib", "abs", "tmp"}


def test_a_whiteout_is_overlays_character_device(tar: Any, base: bytes, import_layers: ImportLayers) -> None:
    """0:0, at the name it hides."""
    image = import_layers(base, tar().file("etc/.wh.a", b"").bytes())
    status = os.lstat(Path(image.layers[0]) / "etc/a")
    assert stat.S_ISCHR(status.st_mode)
    assert status.st_rdev == 0


@pytest.mark.attack("A3")
@pytest.mark.parametrize("opaque_first", [True, False])
def test_an_opaque_directory_hides_lower_layers_only(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged, opaque_first: bool
) -> None:
    """Whether its mark comes before or after the entries of its own layer (the example of the OCI specification)."""
    archive = tar().directory("etc")
    if opaque_first:
        archive.file("etc/.wh..wh..opq", b"").file("etc/new")
    else:
        archive.file("etc/new").file("etc/.wh..wh..opq", b"")
    top = merged(import_layers(base, archive.bytes()))
    assert set(os.listdir(top / "etc")) == {"new"}


@pytest.mark.attack("A3")
@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_whiteout_spares_its_own_layer(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged, whiteout_first: bool
) -> None:
    """A file and a directory that the same layer brings stay; a directory shows nothing of the lower one."""
    whiteouts = [("etc/.wh.a", b""), (".wh.usr", b"")]
    archive = tar()
    for name, content in whiteouts if whiteout_first else []:
        archive.file(name, content)
    archive.file("etc/a", b"mine").directory("usr").file("usr/mine")
    for name, content in [] if whiteout_first else whiteouts:
        archive.file(name, content)
    top = merged(import_layers(base, archive.bytes()))
    assert (top / "etc/a").read_bytes() == b"mine"
    assert os.listdir(top / "usr") == ["mine"]


@pytest.mark.attack("A3")
def test_a_whiteout_through_a_symlink_stays_inside(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged, home: Path
) -> None:
    """Its parent is looked up as overlay shows it: `lib -> usr/lib` hides below usr/lib, a host path nowhere."""
    archive = tar().file("lib/.wh.low", b"").symlink("host", "/etc").file("host/.wh.a", b"").bytes()
    top = merged(import_layers(base, archive))
    assert not (top / "usr/lib/low").exists()
    assert not (top / "etc/a").exists()
    assert (top / "lib").is_symlink()
    assert Path("/etc/hostname").exists()


@pytest.mark.attack("A3")
@pytest.mark.control("A3")
def test_what_a_whiteout_leaves_lands_outside_only_if_links_are_followed(
    tar: Any, import_layers: ImportLayers, tmp_path: Path
) -> None:
    """The same archive, and again with its directories opened as a path is: then the host has the mark."""
    outside = tmp_path / "outside"
    outside.mkdir()
    lower = tar().directory("way").file("way/victim").bytes()

    def upper(name: str) -> bytes:  # another one each time, else the store has it unpacked already
        return bytes(tar().symlink("way", str(outside)).file("way/.wh.victim", b"").file(name).bytes())

    def follow(places: Places, parts: tuple[bytes, ...]) -> tuple[int, tuple[bytes, ...]]:
        return os.open(b"/".join(parts) or b".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=places._root), parts

    import_layers(lower, upper("first"))
    assert os.listdir(outside) == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Places, "directory", follow)
        import_layers(lower, upper("second"))
    assert os.listdir(outside) == ["victim"]


@pytest.mark.attack("A4")
@pytest.mark.control("A4")
def test_an_opaque_mark_as_an_attribute_hides_only_if_it_is_kept(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged
) -> None:
    """The same archive, and again with every attribute taken over: then overlay obeys the layer's own mark."""

    def evil(name: str) -> bytes:  # another one each time, else the store has it unpacked already
        mark = {"SCHILY.xattr.trusted.overlay.opaque": "y"}
        return bytes(tar().directory("etc", pax_headers=mark).file(name).bytes())

    assert set(os.listdir(merged(import_layers(base, evil("first"))) / "etc")) == {"a", "b"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attributes, "is_wanted", lambda name, value: True)
        assert os.listdir(merged(import_layers(base, evil("second"))) / "etc") == []


@pytest.mark.attack("A3")
@pytest.mark.parametrize("name", [".wh.", "etc/.wh.", ".wh..", ".wh...", "etc/.wh.a/x/.wh.y"])
def test_a_whiteout_of_nothing_is_refused(tar: Any, base: bytes, import_layers: ImportLayers, name: str) -> None:
    """`.wh.` alone, and those that would name the directory itself or the one above."""
    with pytest.raises(ImageError, match="whiteout of nothing"):
        import_layers(base, tar().file(name, b"").bytes())


@pytest.mark.attack("A3")
def test_names_reserved_by_aufs_are_skipped(tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged) -> None:
    """`.wh..wh.foo`, and what lies below `.wh..wh.plnk`."""
    archive = tar().file(".wh..wh.aufs", b"").directory(".wh..wh.plnk").file(".wh..wh.plnk/1.2", b"").file("new")
    top = merged(import_layers(base, archive.bytes()))
    assert "new" in os.listdir(top)
    assert not [name for name in _names(top) if ".wh." in name]


def test_a_whiteout_with_nothing_below_leaves_no_trace(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged
) -> None:
    """Overlay lists a mark in a directory that it does not merge as a file that cannot be opened."""
    archive = tar().directory("fresh").file("fresh/.wh.ghost", b"").file("fresh/.wh..wh..opq", b"").bytes()
    image = import_layers(tar().file(".wh.bottom", b"").file("f").bytes(), base, archive)
    top = merged(image)
    assert os.listdir(top / "fresh") == []
    assert "bottom" not in os.listdir(top)


def test_an_opaque_root_hides_all_below(tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged) -> None:
    """Overlay itself ignores such a mark on a layer's root."""
    top = merged(import_layers(base, tar().file(".wh..wh..opq", b"").file("etc/new").bytes()))
    assert _names(top) == {"etc", "etc/new"}


def test_a_directory_after_a_file_of_its_layer_is_a_new_one(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged
) -> None:
    """The file took the lower directory away; the directory does not bring it back."""
    top = merged(import_layers(base, tar().file("etc", b"file").directory("etc").bytes()))
    assert os.listdir(top / "etc") == []


def test_a_parent_left_out_is_made_like_the_one_below(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged
) -> None:
    """A layer that names only `tmp/x` does not turn /tmp into root's own 0755."""
    top = merged(import_layers(base, tar().file("tmp/x").file("usr/lib/x").bytes()))
    assert stat.S_IMODE(os.lstat(top / "tmp").st_mode) == 0o1777
    status = os.lstat(top / "usr/lib")
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o751, 9)
    assert set(os.listdir(top / "usr/lib")) == {"low", "x"}


@pytest.mark.parametrize("parent", ["lib", "abs/lib"])
def test_a_parent_that_is_a_symlink_below_is_followed(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged, parent: str
) -> None:
    """`lib/x` over a base with merged /usr goes to usr/lib and does not hide the link."""
    top = merged(import_layers(base, tar().file(f"{parent}/x").bytes()))
    assert (top / "lib").is_symlink()
    assert set(os.listdir(top / "usr/lib")) == {"low", "x"}


@pytest.mark.attack("A2")
def test_a_hard_link_to_a_lower_file_is_a_copy(
    tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged
) -> None:
    """The lower layer's inode gets no new link: layers are shared between images."""
    image = import_layers(base, tar().hard_link("second", "usr/lib/low").hard_link("third", "abs").bytes())
    assert os.lstat(Path(image.layers[1]) / "usr/lib/low").st_nlink == 1
    top = merged(image)
    assert (top / "second").read_bytes() == b"low"
    assert os.stat(top / "second").st_ino == os.stat(top / "usr/lib/low").st_ino
    assert os.readlink(top / "third") == "/usr"


def test_a_hard_link_to_something_hidden_is_refused(tar: Any, base: bytes, import_layers: ImportLayers) -> None:
    """A whiteout of this layer or of one between hides it from links too."""
    with pytest.raises(ImageError, match="hard link"):
        import_layers(base, tar().file("etc/.wh.a", b"").hard_link("x", "etc/a").bytes())


def test_layers_between_count(tar: Any, base: bytes, import_layers: ImportLayers, merged: Merged) -> None:
    """A third layer sees the first through the second: what that hid is gone, what it made is there."""
    second = tar().file(".wh.lib", b"").directory("etc").file("etc/.wh..wh..opq", b"").file("etc/c").bytes()
    third = tar().file("lib/x").file("etc/.wh.a", b"").file("etc/.wh.c", b"").bytes()
    image = import_layers(base, second, third)
    top = merged(image)
    assert (top / "lib").is_dir()
    assert not (top / "lib").is_symlink()
    assert os.listdir(top / "lib") == ["x"]
    assert os.listdir(top / "etc") == []
    assert os.listdir(Path(image.layers[0]) / "etc") == ["c"]
