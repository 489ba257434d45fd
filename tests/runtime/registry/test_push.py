"""Pushes to a real registry, and what other programs make of them; exports likewise."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.exporting import export
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry.address import parse_address
from dayfly.runtime.registry.pulling import pull
from dayfly.runtime.registry.push import Pushed, mountable, push
from dayfly.runtime.registry.settings import RegistrySettings

_SETTINGS = RegistrySettings()


@pytest.fixture
def root(tar: Any, tmp_path: Path) -> str:
    """A tarball of a root with one of everything that a layer can hold."""
    made = (
        tar().directory("./", mode=0o755).directory("etc", mtime=5).file("etc/f", b"content", uid=7, gid=8, mode=0o4755)
    )
    made.symlink("link", "etc/f").hard_link("hard", "etc/f").file("n" * 150, mtime=1.25)
    made.file("caf\udce9").file("etc/x", pax_headers={"SCHILY.xattr.user.a": "b"})
    (tmp_path / "root.tar").write_bytes(made.bytes())
    return str(tmp_path / "root.tar")


def _push(store: ImageStore, name: str, to: str, **options: Any) -> Pushed:
    with store.packaged(name) as image:
        return push(image, parse_address(to), _SETTINGS, **options)


def _tree(program: Callable[[str], str], source: list[str], tmp_path: Path) -> Path:
    """What umoci unpacks of an image that skopeo has copied."""
    layout = tmp_path / f"copied{len(os.listdir(tmp_path))}"
    subprocess.run([program("skopeo"), "copy", "-q", *source, f"oci:{layout}:t"], check=True, capture_output=True)
    command = [program("umoci"), "unpack", "--image", f"{layout}:t", f"{layout}-bundle"]
    subprocess.run(command, check=True, capture_output=True)
    return Path(f"{layout}-bundle/rootfs")


@pytest.mark.parametrize("way", ["push", "layout", "archive"])
def test_an_imported_root_leaves_as_it_came(
    way: str, registry: Any, store: ImageStore, root: str, need_tool: Any, snapshot: Any, tmp_path: Path
) -> None:
    """What skopeo copies and umoci unpacks is the tree that was imported."""
    layer = store.import_(root, "image").image.layers[0]
    if way == "push":
        _push(store, "image", f"{registry.host}/x")
        source = ["--src-tls-verify=false", f"docker://{registry.host}/x"]
    else:
        target = str(tmp_path / ("out" if way == "layout" else "out.tar"))
        with store.packaged("image") as image:
            export(image, f"{target}:t")
        source = [f"{'oci' if way == 'layout' else 'oci-archive'}:{target}:t"]
    top = (b".",)
    assert snapshot(layer, top) == snapshot(_tree(need_tool, source, tmp_path), top)


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """Podman takes no longer --runroot than 50 characters; it leaves control groups, which go with this."""
    there = set(_groups_of_podman())
    with tempfile.TemporaryDirectory(prefix="dayfly-") as path:
        yield Path(path)
    for group in sorted(set(_groups_of_podman()) - there, reverse=True):
        group.rmdir()


def _groups_of_podman() -> Iterator[Path]:
    return Path("/sys/fs/cgroup").glob("*/libpod_parent/**/")


def test_podman_runs_what_was_pushed(
    registry: Any, store: ImageStore, need_tool: Any, debian: Path, tmp_path: Path, short_directory: Path
) -> None:
    """A whole Debian, by another engine."""
    store.import_(str(debian), "debian")
    _push(store, "debian", f"{registry.host}/debian")
    own = ["--root", str(tmp_path / "podman"), "--runroot", str(short_directory), "--storage-driver", "vfs"]
    own += ["--runtime", need_tool("runc")]  # crun refuses hosts with both versions of control groups
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_CONFIG"}
    name = f"{registry.host}/debian"

    def podman(*arguments: str) -> str:
        command = [need_tool("podman"), *own, "--cgroup-manager", "cgroupfs", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    podman("pull", "-q", "--tls-verify=false", name)
    assert json.loads(podman("image", "inspect", name))[0]["Config"]["Cmd"] == ["/bin/sh"]
    mounted = Path(podman("image", "mount", name))
    assert (mounted / "etc/debian_version").read_text().startswith("12")
    podman("image", "umount", name)
    # Podman raises limits to its own defaults, which root without CAP_SYS_RESOURCE may not.
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]
    assert podman("run", "--rm", "--network", "none", *limits, name, "/bin/echo", "it runs") == "it runs"
    podman("rmi", "-f", name)


def test_what_a_registry_has_is_not_sent_and_what_a_neighbour_has_is_mounted(
    registry: Any, store: ImageStore, root: str, line: Any
) -> None:
    """Twice the same is nothing; another repository of the same registry takes it over by itself."""
    store.import_(root, "image")
    first = _push(store, "image", f"{registry.host}/x")
    assert (first.sent, first.mounted, first.present) == (2, 0, 0)
    assert _push(store, "image", f"{registry.host}/x") == Pushed(first.digest, 0, 0, 2)
    pull(store, f"{registry.host}/x", _SETTINGS)
    to = f"{registry.host}/y:tag"
    assert mountable(f"{registry.host}/x", parse_address(to)) == "x"
    assert _push(store, f"{registry.host}/x", to, mount_from="x") == Pushed(first.digest, 0, 2, 0)
    assert pull(store, to, _SETTINGS).image.digest == first.digest


def test_what_was_pulled_is_pushed_and_exported_byte_for_byte(
    registry: Any, start_registry: Any, store: ImageStore, put: Any, tar: Any, home: Path, tmp_path: Path
) -> None:
    """With its digest; after its packed layers went it is the same tree under another."""
    digest = put("x", tar().file("a").bytes(), tar().file("b").file(".wh.a").bytes())
    pull(store, f"{registry.host}/x", _SETTINGS)
    other = start_registry()
    assert _push(store, f"{registry.host}/x", f"{other.host}/x").digest == digest
    with store.packaged(f"{registry.host}/x") as image:
        export(image, str(tmp_path / "out"))
        export(image, f"{tmp_path}/out:second")
    tags = [each["annotations"] for each in json.loads((tmp_path / "out/index.json").read_text())["manifests"]]
    assert [each["org.opencontainers.image.ref.name"] for each in tags] == ["latest", "second"]
    for path in (home / "images/packed").iterdir():
        path.unlink()
    again = _push(store, f"{registry.host}/x", f"{other.host}/again")
    assert again.digest != digest
    image = pull(store, f"{other.host}/again", _SETTINGS).image
    assert [sorted(os.listdir(layer)) for layer in image.layers] == [["a", "b"], ["a"]]
    assert (Path(image.layers[0]) / "a").stat().st_rdev == 0


def test_the_same_tree_is_packed_to_the_same_bytes(store: ImageStore, root: str, tmp_path: Path) -> None:
    """Whenever, and by as many processors as there are."""
    store.import_(root, "image")
    seen = set()
    for processors in ({0}, os.sched_getaffinity(0)):
        kept = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)
        with store.packaged("image") as image:
            seen.add(image.manifest.digest)
        os.sched_setaffinity(0, kept)
    assert len(seen) == 1


def test_a_push_that_breaks_is_begun_anew(registry: Any, store: ImageStore, root: str, line: Any) -> None:
    """Whatever answer is cut off."""
    store.import_(root, "image")
    line.cuts = [10**9, 300, 300]
    assert _push(store, "image", f"{line.host}/x").sent >= 1
    assert line.cuts == []
    assert pull(store, f"{registry.host}/x", _SETTINGS).image.config.cmd == ("/bin/sh",)


def test_what_cannot_be_pushed_or_exported_says_why(
    registry: Any, store: ImageStore, root: str, tmp_path: Path
) -> None:
    """An image that is not there, a digest as a place, a directory of something else."""
    store.import_(root, "image")
    with pytest.raises(ImageError, match="no image 'nope'"):
        _push(store, "nope", f"{registry.host}/x")
    with pytest.raises(ImageError, match="a digest says what an image is, not where it goes"):
        _push(store, "image", f"{registry.host}/x@sha256:{'0' * 64}")
    with pytest.raises(ImageError, match="'host' is not in the store"):
        _push(store, "host", f"{registry.host}/x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with store.packaged("image") as image:
        with pytest.raises(ImageError, match="neither empty nor an OCI layout"):
            export(image, str(tmp_path / "full"))
        with pytest.raises(ImageError, match=r"cannot export to /proc/x.tar: No such file or directory"):
            export(image, "/proc/x.tar")
