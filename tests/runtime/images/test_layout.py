"""OCI layouts: what is checked, how an image is chosen, and real tools as oracles."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import host_architecture
from dayfly.runtime.images.store import ImageStore

_INDEX = "application/vnd.oci.image.index.v1+json"
_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def _here() -> dict[str, Any]:
    return {"platform": {"os": "linux", "architecture": host_architecture()}}


def _tagged(tag: str) -> dict[str, Any]:
    return {"annotations": {"org.opencontainers.image.ref.name": tag}}


@pytest.fixture
def one(tar: Any) -> bytes:
    return bytes(tar().file("one", b"1").bytes())


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_image_keeps_its_manifests_digest(kind: str, one: bytes, store: ImageStore, layout: Any) -> None:
    """OCI's and Docker's media types; layers come top first, the configuration is read."""
    config = {"Env": ["A=b=c", "PATH=/bin", "broken"], "Cmd": ["x"], "Entrypoint": ["e"], "WorkingDir": "/w"}
    descriptor = layout.image([one, one + bytes(512)], config, kind)
    image = store.import_(layout.index(descriptor), "image").image
    assert image.digest == descriptor["digest"]
    assert hashlib.sha256(one).hexdigest() in image.layers[1]
    assert image.config.env == {"A": "b=c", "PATH": "/bin"}
    assert (image.config.entrypoint, image.config.cmd, image.config.workdir) == (("e",), ("x",), "/w")


def test_the_platform_of_this_machine_is_chosen(one: bytes, tar: Any, store: ImageStore, layout: Any) -> None:
    """Through nested indexes of both kinds; attestations are passed over."""
    other = layout.image([tar().file("other").bytes()], platform={"os": "linux", "architecture": "s390x"})
    attestation = layout.image([tar().file("a").bytes()], platform={"os": "unknown", "architecture": "unknown"})
    mine = layout.image([one], **_here())
    inner = layout.blob(json.dumps({"manifests": [attestation, other, mine]}).encode(), _LIST)
    outer = layout.blob(json.dumps({"manifests": [inner]}).encode(), _INDEX)
    assert store.import_(layout.index(outer), "image").image.digest == mine["digest"]


def test_no_platform_of_this_machine_is_told(one: bytes, store: ImageStore, layout: Any) -> None:
    """With those that there are."""
    other = layout.image([one], platform={"os": "linux", "architecture": "s390x"})
    with pytest.raises(ImageError, match=f"no image for linux/{host_architecture()}; it has linux/s390x"):
        store.import_(layout.index(other), "image")


def test_a_tag_chooses_among_several(one: bytes, tar: Any, store: ImageStore, layout: Any) -> None:
    """`DIR:TAG`; without one, or with a wrong one, the tags are named."""
    first, second = layout.image([one], **_tagged("v1")), layout.image([tar().file("2").bytes()], **_tagged("v2"))
    path = layout.index(first, second)
    assert store.import_(f"{path}:v2", "image").image.digest == second["digest"]
    with pytest.raises(ImageError, match=r"several images; say which: .*:TAG of v1, v2"):
        store.import_(path, "image")
    with pytest.raises(ImageError, match="no image is tagged 'v3'; it has v1, v2"):
        store.import_(f"{path}:v3", "image")


@pytest.mark.parametrize("what", ["layer", "config", "manifest", "diff_id", "size", "missing"])
def test_every_digest_is_checked(what: str, one: bytes, tar: Any, store: ImageStore, home: Path, layout: Any) -> None:
    """A changed bit anywhere, a wrong size, a blob that is not there: refused, nothing left."""
    descriptor = layout.image([one])
    manifest = json.loads(_blob(layout, descriptor).read_bytes())
    layer = _blob(layout, manifest["layers"][0])
    if what == "layer":
        layer.write_bytes(_flipped(layer.read_bytes(), 9))  # the byte that names the system, no part of the data
    elif what == "config":
        _blob(layout, manifest["config"]).write_bytes(_flipped(_blob(layout, manifest["config"]).read_bytes(), 5))
    elif what == "manifest":
        _blob(layout, descriptor).write_bytes(_flipped(_blob(layout, descriptor).read_bytes(), 5))
    elif what == "diff_id":
        manifest["layers"] = [layout.layer(tar().file("two").bytes())]
        descriptor = layout.blob(json.dumps(manifest).encode(), descriptor["mediaType"])
    elif what == "size":
        layer.write_bytes(layer.read_bytes() + b"\0")
    else:
        layer.unlink()
    with pytest.raises(ImageError, match=r"damaged|not a file of|cannot read"):
        store.import_(layout.index(descriptor), "image")
    assert os.listdir(home / "images/layers") == []
    assert os.listdir(home / "images/staging") == []


def _blob(layout: Any, descriptor: dict[str, Any]) -> Path:
    return Path(layout.path) / "blobs" / descriptor["digest"].replace(":", "/")


def _flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@pytest.mark.parametrize(
    "digest", ["sha256:" + "A" * 64, "sha256:../../../etc/passwd", "sha512:" + "a" * 128, "sha256:abc", 7, None]
)
def test_a_digest_cannot_be_a_path(digest: Any, one: bytes, store: ImageStore, layout: Any) -> None:
    """Only sha256 and 64 digits; it is where a blob's file name comes from."""
    with pytest.raises(ImageError, match="is not sha256: and 64"):
        store.import_(layout.index({**layout.image([one]), "digest": digest}), "image")


def test_what_is_no_container_image_is_refused(one: bytes, store: ImageStore, layout: Any) -> None:
    """A chart, an encrypted layer, layers and diff ids that do not agree, no layers."""
    good = json.loads(_blob(layout, layout.image([one])).read_bytes())
    kind = "application/vnd.oci.image.manifest.v1+json"
    cases = {
        "not a container image": {**good, "config": {**good["config"], "mediaType": "application/helm"}},
        "cannot be unpacked": {**good, "layers": [{**good["layers"][0], "mediaType": "application/x+encrypted"}]},
        "2 layers in the manifest and 1": {**good, "layers": good["layers"] * 2},
        "layers must be a list": {**good, "layers": "no"},
    }
    for message, document in cases.items():
        with pytest.raises(ImageError, match=message):
            store.import_(layout.index(layout.blob(json.dumps(document).encode(), kind)), "image")


def test_layers_that_are_there_are_not_read_again(one: bytes, tar: Any, store: ImageStore, layout: Any) -> None:
    """A second image on the same base unpacks only what is new."""
    two = tar().file("two").bytes()
    store.import_(layout.index(layout.image([one])), "base")
    descriptor = layout.image([one, two])
    _blob(layout, json.loads(_blob(layout, descriptor).read_bytes())["layers"][0]).unlink()
    what: list[str] = []
    image = store.import_(layout.index(descriptor), "upper", lambda done, total, name: what.append(name)).image
    assert set(what) == {"layer 2 of 2"}
    assert len(image.layers) == 2


@pytest.mark.slow
@pytest.mark.kernel
def test_a_layout_by_skopeo_and_umoci_is_what_umoci_unpacks(
    debian: Path,
    tar: Any,
    store: ImageStore,
    tmp_path: Path,
    snapshot: Any,
    merged: Callable[..., Path],
    need_tool: Callable[[str], str],
) -> None:
    """A real root in gzip and zstd, with two layers on top that remove, replace, link and hide."""
    umoci, skopeo = need_tool("umoci"), need_tool("skopeo")
    layout, plain = tmp_path / "oci", tmp_path / "plain.tar"
    plain.write_bytes(_without_devices(debian))
    _run(umoci, "init", "--layout", str(layout))
    _run(umoci, "new", "--image", f"{layout}:v1")
    _run(umoci, "raw", "add-layer", "--image", f"{layout}:v1", str(plain))
    second = (
        tar()
        .file("usr/bin/.wh.find", b"")
        .directory("etc/apt")
        .file("etc/apt/.wh..wh..opq", b"")
        .file("etc/apt/new", b"n", uid=33)
        .hard_link("usr/bin/true-again", "usr/bin/true")
        .symlink("opt/escape", "/etc")
        .bytes()
    )
    third = tar().file("opt/escape/through-link", b"t").file("../../outside", b"o").file("etc/apt/.wh.new", b"").bytes()
    for index, layer in enumerate((second, third)):
        (tmp_path / f"{index}.tar").write_bytes(layer)
        _run(umoci, "raw", "add-layer", "--image", f"{layout}:v1", str(tmp_path / f"{index}.tar"))
    _run(umoci, "unpack", "--image", f"{layout}:v1", str(tmp_path / "bundle"))
    wanted = _comparable(snapshot(tmp_path / "bundle/rootfs"))
    ours = _comparable(snapshot(merged(store.import_(f"{layout}:v1", "gzip").image)))
    assert ours == wanted
    _run(skopeo, "copy", "--dest-compress-format", "zstd", f"oci:{layout}:v1", f"oci:{tmp_path / 'zstd'}:v1")
    assert _comparable(snapshot(merged(store.import_(str(tmp_path / "zstd"), "zstd").image))) == wanted


def _without_devices(path: Path) -> bytes:
    """umoci makes the nodes, so both sides start without them."""
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(path) as source, tarfile.open(fileobj=buffer, mode="w") as target:
        for entry in source:
            if not entry.isdev() or entry.isfifo():
                target.addfile(entry, source.extractfile(entry) if entry.isreg() else None)
    return buffer.getvalue()


def _comparable(tree: Any) -> Any:
    """Without times of directories (umoci leaves those that later layers touched), nanoseconds, numbers of links."""
    return {
        path: (mode, uid, gid, 0 if not content else mtime // 10**9, content)
        for path, (mode, uid, gid, mtime, content, *_) in tree.items()
    }


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
