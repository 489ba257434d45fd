"""The store: names, digests, what is shared, what is kept, who may look."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from open_way import OpenWay

from dayfly.jobs.errors import ImageError, ImageNotFound
from dayfly.runtime.images.store import ImageStore

_UNUSED: Callable[[], tuple[str, ...]] = tuple


@pytest.fixture
def import_one(store: ImageStore, tar: Any, tmp_path: Path) -> Callable[[str, bytes], Any]:
    """Imports a root of one file under a name."""

    def run(name: str, content: bytes) -> Any:
        (tmp_path / "r.tar").write_bytes(tar().file("f", content).bytes())
        return store.import_(str(tmp_path / "r.tar"), name).image

    return run


def test_an_image_is_found_by_name_and_digest(store: ImageStore, import_one: Any) -> None:
    """By its name, with `:latest`, pinned, by digest alone, and by another process."""
    image = import_one("a/b", b"1")
    for reference in ("a/b", "a/b:latest", f"a/b@{image.digest}", image.digest):
        found = store.resolve(reference)
        assert (found.digest, found.layers, found.config) == (image.digest, image.layers, image.config)
    assert image.config.cmd == ("/bin/sh",)


def test_a_store_made_anew_finds_what_was_imported(store: ImageStore, home: Path, import_one: Any) -> None:
    """Everything is on the disk."""
    image = import_one("a", b"1")
    assert ImageStore(home).resolve("a") == image
    assert os.path.isabs(image.layers[0])


def test_an_image_that_is_not_there_names_the_remedy(store: ImageStore, import_one: Any, tmp_path: Path) -> None:
    """Near names, how to import, what the name means now, that a path is a file."""
    image = import_one("debian:12", b"1")
    (tmp_path / "file").touch()
    for reference, message in {
        "debain:12": "no image 'debain:12'; did you mean debian:12.*`dayfly image import SOURCE debain:12`",
        "hots": "did you mean host",
        f"debian:12@sha256:{'0' * 64}": f"debian:12 is {image.digest} now",
        f"sha256:{'0' * 64}": "`dayfly image ls` lists them",
        f"{tmp_path}/file": "is a file, not a directory; `dayfly image import",
        f"{tmp_path}/missing": "No such file",
    }.items():
        with pytest.raises(ImageNotFound, match=message):
            store.resolve(reference)


def test_the_digest_of_a_config_is_no_image(store: ImageStore, home: Path, import_one: Any) -> None:
    """Blobs of both kinds lie in one directory."""
    image = import_one("a", b"1")
    (config,) = {"sha256:" + name for name in os.listdir(home / "images/blobs/sha256")} - {image.digest}
    with pytest.raises(ImageNotFound):
        store.resolve(config)


def test_a_directory_is_an_image_in_place(store: ImageStore, home: Path, tmp_path: Path) -> None:
    """Absolute, by its real path; not the store itself, nor what holds it."""
    (tmp_path / "root").mkdir()
    (tmp_path / "link").symlink_to("root")
    image = store.resolve(f"{tmp_path}/link")
    assert (image.layers, image.digest) == ((f"{tmp_path}/root",), f"dir:{tmp_path}/root")
    for path in (home, home / "images/layers", tmp_path, Path("/")):
        with pytest.raises(ImageError, match="cannot be an image: it lies in"):
            store.resolve(f"{path}/")


def test_ls_lists_what_there_is(store: ImageStore, import_one: Any) -> None:
    """Names in order, with digest, size and number of layers."""
    images = {name: import_one(name, content) for name, content in (("b", b"22"), ("a", b"1"))}
    listed = store.ls()
    assert [(entry.name, entry.digest) for entry in listed] == [(name, images[name].digest) for name in ("a", "b")]
    assert [(entry.size_bytes, entry.layers) for entry in listed] == [(1, 1), (2, 1)]


def test_a_name_that_moves_leaves_its_old_image_pinned(store: ImageStore, import_one: Any) -> None:
    """A queued job may hold the old digest; it is listed by it, and goes by it."""
    old, new = import_one("a", b"old"), import_one("a", b"new")
    assert store.resolve("a").digest == new.digest
    assert store.resolve(f"a@{old.digest}").layers == old.layers
    assert {entry.name for entry in store.ls()} == {"a", old.digest}
    assert import_one("a", b"old").digest == old.digest
    assert {entry.name for entry in store.ls()} == {"a", new.digest}
    store.remove(new.digest, _UNUSED)
    assert [entry.name for entry in store.ls()] == ["a"]


def test_removing_frees_what_nothing_else_needs(store: ImageStore, home: Path, layout: Any, tar: Any) -> None:
    """A layer goes with the last image that has it."""
    base, upper = tar().file("base", bytes(1000)).bytes(), tar().file("upper", bytes(10)).bytes()
    store.import_(layout.index(layout.image([base])), "base")
    store.import_(layout.index(layout.image([base, upper])), "both")
    store.import_(layout.index(layout.image([base, upper])), "again")
    assert store.remove("again", _UNUSED) == 0
    assert 10 <= store.remove("both", _UNUSED) < 1000
    assert len(os.listdir(home / "images/layers")) == 1
    assert store.remove("base", _UNUSED) >= 1000
    for directory in ("layers", "staging", "refs", "blobs/sha256"):
        assert os.listdir(home / "images" / directory) == []
    with pytest.raises(ImageNotFound):
        store.remove("base", _UNUSED)


def test_a_layer_in_use_stays(store: ImageStore, import_one: Any) -> None:
    """The name goes at once, the layer at the first sweep after its job has ended."""
    image = import_one("a", b"1")
    assert store.remove("a", lambda: set(image.layers)) > 0  # the manifest and its configuration
    assert os.path.isdir(image.layers[0])
    assert store.sweep(lambda: set(image.layers)) == 0
    assert store.sweep(_UNUSED) == 1
    assert not os.path.exists(image.layers[0])


def test_what_is_not_in_the_store_cannot_be_removed(store: ImageStore) -> None:
    """The host's image and a directory in place."""
    for reference in ("host", "./root"):
        with pytest.raises(ImageError, match="is not in the store"):
            store.remove(reference, _UNUSED)


def test_a_layer_that_is_held_is_not_taken_away(store: ImageStore, home: Path, import_one: Any) -> None:
    """Between resolve and the job's record a removal waits, then sees the record."""
    image = import_one("a", b"1")
    records: set[str] = set()
    asked = threading.Event()

    def in_use() -> set[str]:
        asked.set()
        return records

    remover = threading.Thread(target=lambda: ImageStore(home).remove("a", in_use))
    with store.hold():
        layers = store.resolve("a").layers
        remover.start()
        with open(home / "images/lock") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert not asked.is_set()
        records |= set(layers)
    remover.join(10)
    assert asked.is_set()
    assert os.path.isdir(image.layers[0])


def test_the_host_can_be_resolved_while_held(store: ImageStore) -> None:
    """Making its skeleton takes no lock that the holder would wait for."""
    with store.hold():
        assert store.resolve("host").host_trees[0] == "/usr"


def test_a_missing_layer_is_told(store: ImageStore, import_one: Any) -> None:
    """Rather than an overlay that cannot be mounted."""
    image = import_one("a", b"1")
    shutil.rmtree(os.path.dirname(image.layers[0]))
    with pytest.raises(ImageError, match=r"its layer .* is missing; import the image again"):
        store.resolve("a")
    assert import_one("a", b"1") == image
    assert store.resolve("a") == image


def test_ten_imports_at_once_make_one_image(home: Path, tmp_path: Path, tar: Any) -> None:
    """Of the same tarball under the same name, in processes of their own; with removals among them."""
    (tmp_path / "r.tar").write_bytes(tar().file("f", os.urandom(1 << 20)).bytes())
    script = (
        "import sys; from dayfly.runtime.images.store import ImageStore; store = ImageStore(sys.argv[1])\n"
        "for _ in range(3): store.import_(sys.argv[2], 'a'); store.sweep(set)"
    )
    command = [sys.executable, "-c", script, str(home), str(tmp_path / "r.tar")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(10)]
    for process in processes:
        assert process.communicate(timeout=100)[1] == b""
    store = ImageStore(home)
    assert [entry.name for entry in store.ls()] == ["a"]
    assert os.path.isdir(store.resolve("a").layers[0])
    assert os.listdir(home / "images/staging") == []


def test_an_import_keeps_the_layers_it_builds_on(store: ImageStore, home: Path, layout: Any, tar: Any) -> None:
    """A sweep in the middle of an import leaves the base, though its name is gone; after the import it goes."""
    base, upper = tar().file("base").bytes(), tar().file("upper", os.urandom(2 << 20)).bytes()
    store.import_(layout.index(layout.image([base])), "base")
    other = ImageStore(home)
    removed: list[int] = []

    def interfere(*_: Any) -> None:
        if not removed:
            removed.append(other.remove("base", _UNUSED))

    image = store.import_(layout.index(layout.image([base, upper])), "both", interfere).image
    assert removed[0] > 0
    assert all(os.path.isdir(layer) for layer in image.layers)
    store.remove("both", _UNUSED)
    assert os.listdir(home / "images/layers") == []


def test_a_killed_import_is_swept(store: ImageStore, home: Path, tmp_path: Path) -> None:
    """Its staging directory goes at the next sweep, one of a living import does not."""
    os.mkfifo(tmp_path / "started")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/f").write_bytes(bytes(3 << 20))
    script = (
        "import sys, signal; from dayfly.runtime.images.store import ImageStore\n"
        "def wait(*_):\n open(sys.argv[3], 'w').close(); signal.pause()\n"
        "ImageStore(sys.argv[1]).import_(sys.argv[2], 'a', wait)"
    )
    command = [sys.executable, "-c", script, str(home), str(tmp_path / "root"), str(tmp_path / "started")]
    process = subprocess.Popen(command)
    try:
        (tmp_path / "started").read_bytes()
        store.sweep(_UNUSED)
        assert len(os.listdir(home / "images/staging")) == 1
    finally:
        process.kill()
        process.wait()
    store.sweep(_UNUSED)
    assert os.listdir(home / "images/staging") == []


@pytest.mark.attack("A6")
@pytest.mark.control("A6")
def test_nobody_else_may_enter_the_store(home: Path, tar: Any, tmp_path: Path, open_way: OpenWay) -> None:
    """Another user of the host cannot even stat a setuid program of an image (CVE-2021-41091)."""
    home.mkdir(mode=0o755)
    (home / "images").mkdir(mode=0o755)
    open_way(home)
    (tmp_path / "r.tar").write_bytes(tar().file("su", mode=0o4755).bytes())
    layer = ImageStore(home).import_(str(tmp_path / "r.tar"), "a").image.layers[0]
    assert os.stat(home / "images").st_mode & 0o7777 == 0o700
    assert os.stat(home / "images").st_uid == os.geteuid()
    assert _as_nobody(f"{layer}/su") == "PermissionError"
    (home / "images").chmod(0o755)  # the negative control: the layer itself would let everybody in
    for path in Path(layer).parents:
        if path == home / "images":
            break
        path.chmod(0o755)
    assert _as_nobody(f"{layer}/su") == "0o104755"


def _as_nobody(path: str) -> str:
    script = (
        "import os, sys; os.setgroups([]); os.setgid(1001); os.setuid(1001)\n"
        "try: print(oct(os.stat(sys.argv[1]).st_mode))\nexcept OSError as error: print(type(error).__name__)"
    )
    command = ["/usr/bin/python3", "-c", script, path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
