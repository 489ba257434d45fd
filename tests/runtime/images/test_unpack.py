"""One layer's archive, hostile or odd, into a directory."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.store import ImageStore

ImportTar = Callable[[bytes], Path]


def _escapes(tar: Any) -> bytes:
    """Every way out of a directory that a tar archive can name; the canary lies beside the root."""
    return bytes(
        tar()
        .file("../canary", b"evil")
        .file("/../../canary", b"evil")
        .symlink("up", "..")
        .file("up/canary", b"evil")
        .symlink("a", ".")
        .symlink("a/b", "a/..")
        .file("b/../canary", b"evil")
        .symlink("absolute", "/")
        .file("absolute/absolute-canary", b"evil")
        .symlink("file-link", "../canary")
        .file("file-link", b"evil")
        .bytes()
    )


@pytest.mark.attack("A1")
def test_nothing_is_written_outside_the_layer(tar: Any, import_tar: ImportTar, home: Path) -> None:
    """`..`, absolute names and symlinked parents end inside the layer, however they are combined."""
    layer = import_tar(_escapes(tar))
    outside = {path.name for path in home.rglob("*canary*") if not path.is_relative_to(layer)}
    assert outside == set()
    assert not Path("/absolute-canary").exists()
    assert (layer / "canary").read_bytes() == b"evil"
    assert (layer / "absolute-canary").read_bytes() == b"evil"


@pytest.mark.control("A1")
def test_the_same_archive_does_escape_from_tarfile(tar: Any, tmp_path: Path) -> None:
    """The attack is real: tarfile without a filter writes outside (the negative control)."""
    _extract(tar().file("../canary", b"evil").symlink("up", "..").bytes(), tmp_path / "inner")
    assert (tmp_path / "canary").read_bytes() == b"evil"


def _extract(archive: bytes, top: Path) -> None:
    """As a program does that believes what it unpacks."""
    top.mkdir()
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(top, filter="fully_trusted")


@pytest.mark.attack("A1")
def test_an_absolute_symlink_as_parent_means_the_layers_own_root(tar: Any, import_tar: ImportTar) -> None:
    """`lib -> /usr/lib`, then `lib/x`, is `usr/lib/x` of the layer, never of the host."""
    layer = import_tar(tar().symlink("lib", "/usr/dayfly-test/lib").file("lib/x", b"in").bytes())
    assert (layer / "usr/dayfly-test/lib/x").read_bytes() == b"in"
    assert not Path("/usr/dayfly-test").exists()


@pytest.mark.attack("A2")
def test_a_hard_link_to_a_host_file_is_refused(tar: Any, import_tar: ImportTar) -> None:
    """A hard link out of the layer finds nothing, and the host's file keeps its number of links."""
    before = os.stat("/etc/hostname").st_nlink
    for target in ("../../../../../../etc/hostname", "/etc/hostname"):
        with pytest.raises(ImageError, match="hard link to 'etc/hostname', which is no file in the image"):
            import_tar(tar().directory("etc").hard_link("stolen", target).bytes())
    with pytest.raises(ImageError, match="hard link"):
        import_tar(tar().symlink("out", "/etc").hard_link("stolen", "out/hostname").bytes())
    assert os.stat("/etc/hostname").st_nlink == before


@pytest.mark.attack("A2")
def test_a_hard_link_to_a_symlink_links_the_symlink(tar: Any, import_tar: ImportTar) -> None:
    """It never reaches what the symlink points to."""
    before = os.stat("/etc/hostname").st_nlink
    layer = import_tar(tar().symlink("link", "/etc/hostname").hard_link("second", "link").bytes())
    assert (layer / "second").is_symlink()
    assert os.lstat(layer / "second").st_nlink == 2
    assert os.stat("/etc/hostname").st_nlink == before


@pytest.mark.control("A2")
def test_the_same_hard_link_of_tarfiles_is_the_hosts_file(tar: Any, tmp_path: Path) -> None:
    """The attack is real: the layer's name and the host's are one file (the negative control)."""
    (tmp_path / "host").write_bytes(b"the host's")
    _extract(tar().hard_link("stolen", str(tmp_path / "host")).bytes(), tmp_path / "inner")
    (tmp_path / "inner/stolen").write_bytes(b"evil")
    assert (tmp_path / "host").read_bytes() == b"evil"


def test_symlinks_without_end_are_refused(tar: Any, import_tar: ImportTar) -> None:
    """A loop of symlinks as parent is an error, not a loop of ours."""
    with pytest.raises(ImageError, match="symlinks without end"):
        import_tar(tar().symlink("a", "b").symlink("b", "a").file("a/x").bytes())


@pytest.mark.attack("A1")
def test_what_a_path_cannot_be_is_refused(tar: Any, import_tar: ImportTar) -> None:
    """A path over PATH_MAX, too deep, with a part over NAME_MAX, or through a file, each says so."""
    with pytest.raises(ImageError, match="longer than a path may be"):
        import_tar(tar().file("/".join(["d" * 200] * 30)).bytes())
    with pytest.raises(ImageError, match="more than 256 parts"):
        import_tar(tar().file("d/" * 300 + "x").bytes())
    with pytest.raises(ImageError, match="File name too long"):
        import_tar(tar().file("n" * 300).bytes())
    with pytest.raises(ImageError, match="used as a directory"):
        import_tar(tar().file("f").file("f/x").bytes())


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_survive(tar: Any, import_tar: ImportTar, tar_format: int) -> None:
    """Names and link targets of 300 characters, in PAX and GNU archives."""
    name = "/".join(["long" * 25] * 3)
    layer = import_tar(
        tar(format=tar_format).file(name, b"content").symlink("link", name).hard_link("hard", name).bytes()
    )
    assert (layer / name).read_bytes() == b"content"
    assert os.readlink(layer / "link") == name
    assert os.stat(layer / "hard").st_ino == os.stat(layer / name).st_ino


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_that_are_not_utf8_survive(tar: Any, import_tar: ImportTar, tar_format: int) -> None:
    """Bytes stay bytes, newlines and escapes included."""
    for name in (b"caf\xe9", b"\xff\xfe", b"new\nline", "grün".encode(), b"\x1b[31m"):
        layer = import_tar(tar(format=tar_format).file(os.fsdecode(name)).symlink("l", os.fsdecode(name)).bytes())
        assert set(os.listdir(os.fsencode(layer))) == {name, b"l"}
        assert os.readlink(os.fsencode(layer) + b"/l") == name


def test_times_are_kept_to_the_nanosecond(tar: Any, import_tar: ImportTar) -> None:
    """Of files, directories that were written into later, and symlinks; before 1970 too."""
    stamp = {"mtime": "1234567890.123456789"}
    old = {"mtime": "-5.250000000"}
    archive = (
        tar()
        .directory("d", pax_headers=stamp)
        .file("d/f", pax_headers=stamp)
        .symlink("d/l", "f", pax_headers=stamp)
        .file("old", pax_headers=old)
        .bytes()
    )
    layer = import_tar(archive)
    for name in ("d", "d/f", "d/l"):
        assert os.lstat(layer / name).st_mtime_ns == 1234567890123456789
    assert os.lstat(layer / "old").st_mtime_ns == -5250000000


@pytest.mark.parametrize("time", ["nan", "inf", "-inf", "1e400"])
def test_a_time_that_is_none_is_1970(tar: Any, import_tar: ImportTar, time: str) -> None:
    """Python's float() takes them all."""
    assert os.lstat(import_tar(tar().file("f", pax_headers={"mtime": time}).bytes()) / "f").st_mtime_ns == 0


def test_a_nul_is_refused_wherever_it_stands(tar: Any, import_tar: ImportTar) -> None:
    """In a name, the target of a link, the name of an attribute."""
    for archive in (
        tar().file("f", pax_headers={"path": "a\0b"}),
        tar().symlink("l", "x", pax_headers={"linkpath": "a\0b"}),
        tar().file("h").hard_link("i", "h").add("j", tarfile.LNKTYPE, pax_headers={"linkpath": "h\0"}),
        tar().file("f", pax_headers={"SCHILY.xattr.user.a\0b": "x"}),
    ):
        with pytest.raises(ImageError, match=r"NUL|null"):
            import_tar(archive.bytes())


def test_owners_and_modes_are_kept_as_they_are(tar: Any, import_tar: ImportTar) -> None:
    """Ids 0-65535 and all twelve mode bits, setuid after the change of owner included."""
    layer = import_tar(tar().file("su", mode=0o6755, uid=65535, gid=42).directory("t", mode=0o1777, uid=7).bytes())
    status = os.lstat(layer / "su")
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o6755, 65535, 42)
    assert stat.S_IMODE(os.lstat(layer / "t").st_mode) == 0o1777


def test_owners_beyond_a_jobs_range_become_nobody(tar: Any, store: ImageStore, tmp_path: Path) -> None:
    """And the import says so."""
    (tmp_path / "r.tar").write_bytes(tar().file("f", uid=70000, gid=5).file("g", gid=1 << 31).bytes())
    imported = store.import_(str(tmp_path / "r.tar"), "image")
    status = os.lstat(Path(imported.image.layers[0]) / "f")
    assert (status.st_uid, status.st_gid) == (65534, 5)
    assert any("2 owners outside 0-65535" in warning for warning in imported.warnings)


@pytest.mark.attack("A5")
def test_devices_are_skipped_and_told(tar: Any, store: ImageStore, tmp_path: Path) -> None:
    """Nodes of any kind, overlay's own 0:0 included, are not made; FIFOs are."""
    archive = (
        tar()
        .add("null", tarfile.CHRTYPE, devmajor=1, devminor=3)
        .add("sda", tarfile.BLKTYPE, devmajor=8, devminor=0)
        .add("whiteout", tarfile.CHRTYPE, devmajor=0, devminor=0)
        .add("fifo", tarfile.FIFOTYPE, mode=0o620)
        .bytes()
    )
    (tmp_path / "r.tar").write_bytes(archive)
    imported = store.import_(str(tmp_path / "r.tar"), "image")
    layer = Path(imported.image.layers[0])
    assert os.listdir(layer) == ["fifo"]
    assert stat.S_IFMT(os.lstat(layer / "fifo").st_mode) == stat.S_IFIFO
    assert imported.warnings == ("left out 3 device nodes",)


@pytest.mark.control("A5")
def test_the_same_device_of_tarfiles_opens(tar: Any, tmp_path: Path, lacks: Callable[[str], None]) -> None:
    """The attack is real: unpacked by root, a layer's node is the host's device (the negative control)."""
    if os.geteuid() != 0:
        lacks("root, who alone makes devices")
    _extract(tar().add("zero", tarfile.CHRTYPE, devmajor=1, devminor=5, mode=0o666).bytes(), tmp_path / "inner")
    with open(tmp_path / "inner/zero", "rb") as device:
        assert device.read(8) == bytes(8)


@pytest.mark.attack("A4")
def test_attributes_that_speak_to_overlay_are_dropped(tar: Any, store: ImageStore, tmp_path: Path) -> None:
    """trusted.* and user.overlay.* go; user.* and a file's capabilities stay."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.trusted.overlay.metacopy": "",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "x",
        "SCHILY.xattr.user.note": b"\xff\0kept".decode("utf-8", "surrogateescape"),
        "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
    }
    archive = tar().directory("d", pax_headers=headers).file("f", pax_headers=headers).bytes()
    (tmp_path / "r.tar").write_bytes(archive)
    imported = store.import_(str(tmp_path / "r.tar"), "image")
    for name in ("d", "f"):
        path = Path(imported.image.layers[0]) / name
        assert set(os.listxattr(path)) == {"user.note", "security.capability"}
        assert os.getxattr(path, "user.note") == b"\xff\0kept"
        assert os.getxattr(path, "security.capability") == capability
    assert "left out 6 extended attributes trusted.*" in imported.warnings


@pytest.mark.attack("A5")
def test_a_capability_of_another_namespace_is_dropped(tar: Any, import_tar: ImportTar) -> None:
    """Version 3 names a root id of the host; inside a job's range it would mean nothing or somebody else."""
    version3 = bytes.fromhex("0100000300200000000000000000000000000000a0860100")
    headers = {"SCHILY.xattr.security.capability": version3.decode("utf-8", "surrogateescape")}
    layer = import_tar(tar().file("f", pax_headers=headers).bytes())
    assert os.listxattr(layer / "f") == []


def test_a_later_entry_replaces_an_earlier_one(tar: Any, import_tar: ImportTar) -> None:
    """Of any kind by any kind, without writing through hard links or symlinks; a directory stays one."""
    archive = (
        tar()
        .file("a", b"first")
        .hard_link("b", "a")
        .file("a", b"second")
        .directory("d", mode=0o700)
        .file("d/kept")
        .directory("d", mode=0o711)
        .file("e/x")
        .file("e", b"file now")
        .file("f")
        .directory("f")
        .symlink("s", "a")
        .file("s", b"file now")
        .bytes()
    )
    layer = import_tar(archive)
    assert (layer / "a").read_bytes() == b"second"
    assert (layer / "b").read_bytes() == b"first"
    assert (layer / "d/kept").exists()
    assert stat.S_IMODE(os.lstat(layer / "d").st_mode) == 0o711
    assert (layer / "e").read_bytes() == b"file now"
    assert (layer / "f").is_dir()
    assert not (layer / "s").is_symlink()


def test_a_parent_that_changes_its_meaning_is_looked_up_anew(tar: Any, import_tar: ImportTar) -> None:
    """The same parent path, before and after its symlink is replaced."""
    archive = (
        tar().directory("one").directory("two").symlink("p", "one").file("p/a").symlink("p", "two").file("p/b").bytes()
    )
    layer = import_tar(archive)
    assert os.listdir(layer / "one") == ["a"]
    assert os.listdir(layer / "two") == ["b"]


def test_a_sparse_file_keeps_its_holes(import_tar: ImportTar, tmp_path: Path, need_tool: Callable[[str], str]) -> None:
    """GNU tar's three sparse formats, read back byte for byte without filling the disk."""
    source = tmp_path / "source"
    source.mkdir()
    with open(source / "sparse", "wb") as file:
        file.seek(50 << 20)
        file.write(b"middle")
        file.truncate(100 << 20)
    for options in (["--format=gnu"], ["--format=pax", "--sparse-version=0.1"], ["--format=pax"]):
        command = [need_tool("tar"), "-C", str(source), "-S", *options, "-cf", str(tmp_path / "s.tar"), "sparse"]
        subprocess.run(command, check=True)
        layer = import_tar((tmp_path / "s.tar").read_bytes())
        assert os.stat(layer / "sparse").st_size == 100 << 20
        assert os.stat(layer / "sparse").st_blocks * 512 < 1 << 20
        with open(layer / "sparse", "rb") as file:
            file.seek(50 << 20)
            assert file.read(6) == b"middle"


def test_the_root_entry_sets_the_root(tar: Any, import_tar: ImportTar) -> None:
    """`./` in the archive is the layer's own directory."""
    layer = import_tar(tar().directory("./", mode=0o750, uid=3, mtime=77).file("./f").bytes())
    status = os.lstat(layer)
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_mtime) == (0o750, 3, 77)
    with pytest.raises(ImageError, match="its root is not a directory"):
        import_tar(tar().symlink(".", "/").bytes())


def test_parents_left_out_are_made(tar: Any, import_tar: ImportTar) -> None:
    """As root's, mode 0755, whatever the umask."""
    before = os.umask(0o077)
    try:
        layer = import_tar(tar().file("a/b/c").bytes())
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.lstat(layer / "a/b").st_mode) == 0o755
    assert stat.S_IMODE(os.lstat(layer).st_mode) == 0o755
