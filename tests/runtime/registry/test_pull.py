"""Pulls from a real registry: what comes is what umoci unpacks; what breaks is gone on with, what is wrong refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.manifest import host_architecture
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry import download, session
from dayfly.runtime.registry.pulling import pull
from dayfly.runtime.registry.settings import RegistrySettings

_SETTINGS = RegistrySettings()
_INDEX = "application/vnd.oci.image.index.v1+json"


def _noise(seed: int, size: int) -> bytes:
    """Bytes that no packer makes smaller."""
    return b"".join(hashlib.sha256(b"%d %d" % (seed, number)).digest() for number in range(size // 32))


def test_what_umoci_made_and_skopeo_pushed_is_what_umoci_unpacks(
    registry: Any,
    put: Callable[..., str],
    store: ImageStore,
    tar: Any,
    layout: Any,
    merged: Any,
    snapshot: Any,
    need_tool: Any,
    tmp_path: Path,
) -> None:
    """Two layers, the second one taking away and replacing; every byte, mode, owner, time and link."""
    below = (
        tar()
        .directory("etc")
        .file("etc/gone")
        .file("etc/kept", mtime=1.5)
        .symlink("l", "etc")
        .hard_link("h", "etc/kept")
    )
    above = tar().file("etc/.wh.gone").file("etc/new", uid=7, gid=8, mode=0o4750)
    digest = put("x/y:1", below.bytes(), above.bytes(), Env=["A=b"], Cmd=["true"])
    pulled = pull(store, f"{registry.host}/x/y:1", _SETTINGS)
    assert pulled.image.digest == digest
    assert (pulled.image.config.env, pulled.image.config.cmd) == ({"A": "b"}, ("true",))
    command = [need_tool("umoci"), "unpack", "--image", f"{layout.path}:latest", str(tmp_path / "bundle")]
    index = json.loads((layout.path / "index.json").read_text())
    index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (layout.path / "index.json").write_text(json.dumps(index))
    subprocess.run(command, check=True, capture_output=True)
    top = (b".",)  # of the upper that it is mounted with
    assert snapshot(merged(pulled.image), top) == snapshot(tmp_path / "bundle/rootfs", top)


def test_what_is_there_is_not_fetched_again(registry: Any, put: Any, store: ImageStore, tar: Any, line: Any) -> None:
    """Nor is a layer that another image brought; whoever says so gets the image that is there, unasked."""
    base, own = tar().file("base", _noise(1, 1 << 20)).bytes(), tar().file("own").bytes()
    put("a", base)
    put("b", base, own)
    pull(store, f"{line.host}/a", _SETTINGS)
    before = line.answered
    assert before > 1 << 20
    pull(store, f"{line.host}/b", _SETTINGS)
    pull(store, f"{line.host}/a", _SETTINGS)
    assert line.answered - before < 1 << 17
    connections = line.connections
    assert pull(store, f"{line.host}/a", _SETTINGS, only_if_missing=True).image.name == f"{line.host}/a"
    assert line.connections == connections


def test_ten_at_once_are_one_download(put: Any, home: Path, tar: Any, line: Any) -> None:
    """Each from a store of its own, as ten workers of a host have."""
    put("a", tar().file("base", _noise(1, 4 << 20)).bytes())
    ends: list[object] = []

    def one() -> None:
        try:
            ends.append(pull(ImageStore(home), f"{line.host}/a", _SETTINGS, only_if_missing=True).image.digest)
        except Exception as error:  # noqa: BLE001 - told below
            ends.append(error)

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ends) == 10
    assert len({str(end) for end in ends}) == 1, ends
    assert 4 << 20 < line.answered < 5 << 20


def test_an_index_leads_to_this_machines_platform_and_pins_both(
    registry: Any, store: ImageStore, layout: Any, tar: Any, skopeo: Any
) -> None:
    """The digest of the index is a name of the image, so is the manifest's; another platform is had by asking."""
    mine = {"platform": {"os": "linux", "architecture": host_architecture()}}
    other = {"platform": {"os": "linux", "architecture": "s390x"}}
    layers = [tar().file(name).bytes() for name in ("mine", "other")]
    images = [layout.image([layer], **extra) for layer, extra in zip(layers, (mine, other), strict=True)]
    index = layout.blob(json.dumps({"schemaVersion": 2, "mediaType": _INDEX, "manifests": images}).encode(), _INDEX)
    skopeo("copy", "--all", f"oci:{layout.index(index)}", f"docker://{registry.host}/x")
    image = pull(store, f"{registry.host}/x", _SETTINGS).image
    assert image.digest == images[0]["digest"]
    for pin in (index["digest"], images[0]["digest"]):
        assert store.resolve(f"{registry.host}/x@{pin}").digest == image.digest
    assert [entry.name for entry in store.ls()] == [f"{registry.host}/x"]
    assert pull(store, f"{registry.host}/x", _SETTINGS, platform="linux/s390x").image.digest == images[1]["digest"]
    with pytest.raises(ImageError, match="no image for linux/mips; it has"):
        pull(store, f"{registry.host}/x", _SETTINGS, platform="linux/mips")


def test_a_pinned_image_is_the_same_whatever_its_tag_means_now(
    registry: Any, put: Any, store: ImageStore, tar: Any
) -> None:
    """And a pull of it leaves the tag alone; when it goes, its name having gone, its layers do."""
    first = put("x", tar().file("first").bytes())
    put("x", tar().file("second").bytes())
    assert pull(store, f"{registry.host}/x", _SETTINGS).image.digest != first
    pinned = pull(store, f"{registry.host}/x@{first}", _SETTINGS).image
    assert (pinned.digest, store.resolve(f"{registry.host}/x").digest == first) == (first, False)
    assert {entry.digest for entry in store.ls()} == {first, store.resolve(f"{registry.host}/x").digest}
    store.remove(first, lambda: ())
    store.remove(f"{registry.host}/x", lambda: ())
    assert os.listdir(Path(pinned.layers[0]).parents[1]) == []
    assert os.listdir(Path(pinned.layers[0]).parents[2] / "packed") == []


@pytest.mark.parametrize("cut", [100, 70_000, 700_000, 3_000_000])
def test_a_connection_that_breaks_is_gone_on_with(cut: int, put: Any, store: ImageStore, tar: Any, line: Any) -> None:
    """From the byte where it broke: nothing is fetched twice but what was on its way."""
    put("a", tar().file("large", _noise(2, 4 << 20)).bytes())
    line.cuts = [10**9, cut, cut]  # the first is asked for TLS
    pull(store, f"{line.host}/a", _SETTINGS)
    assert line.cuts == []
    assert line.answered < (4 << 20) + (1 << 20)


def test_a_download_that_was_killed_is_gone_on_with_by_the_next(
    put: Any, home: Path, store: ImageStore, tar: Any, line: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it brought lies there; damaged meanwhile, it is fetched anew."""
    put("a", tar().file("large", _noise(3, 4 << 20)).bytes())
    monkeypatch.setattr(download, "_FRUITLESS_TRIES", 0)
    for damaged in (False, True):
        line.cuts = [10**9, 2_000_000, *[10] * 12]
        with pytest.raises(ImageError, match=r"broke off at byte|cannot get the layer"):
            pull(store, f"{line.host}/a", _SETTINGS)
        line.cuts.clear()
        (part,) = (home / "images/packed").glob("*.part")
        assert part.stat().st_size > 1_000_000
        if damaged:
            with open(part, "r+b") as file:
                file.seek(500_000)
                file.write(b"damage")
        before = line.answered
        image = pull(store, f"{line.host}/a", _SETTINGS).image
        assert line.answered - before < (7 << 20 if damaged else 3 << 20)
        assert (Path(image.layers[0]) / "large").read_bytes() == _noise(3, 4 << 20)
        store.remove(f"{line.host}/a", lambda: ())


def test_a_registry_that_is_started_again_meanwhile_is_waited_for(
    registry: Any, put: Any, store: ImageStore, tar: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a layer; whatever had come stays."""
    put("a", tar().file("large", _noise(4, 8 << 20)).bytes())
    restarts: list[threading.Timer] = []

    def took(digest: str, size: int, total: int) -> None:
        if size > 1 << 20 and not restarts:
            registry.stop()
            restarts.append(threading.Timer(0.3, registry.start))
            restarts[0].start()

    monkeypatch.setattr(session, "_FIRST_PAUSE_SECONDS", 0.2)
    image = pull(store, f"{registry.host}/a", _SETTINGS, took).image
    restarts[0].join()
    assert (Path(image.layers[0]) / "large").read_bytes() == _noise(4, 8 << 20)


def test_a_byte_that_changed_on_its_way_is_found_and_the_layer_fetched_again(
    put: Any, home: Path, store: ImageStore, tar: Any, line: Any
) -> None:
    """A second time in a row it is told, and nothing of it is in the store."""
    put("a", tar().file("large", _noise(5, 1 << 20)).bytes())
    line.wrong_at = 500_000
    image = pull(store, f"{line.host}/a", _SETTINGS).image
    assert line.wrong_at is None
    assert (Path(image.layers[0]) / "large").read_bytes() == _noise(5, 1 << 20)


def test_what_is_wrong_in_the_registry_itself_is_refused(
    registry: Any, put: Any, home: Path, store: ImageStore, tar: Any
) -> None:
    """A blob that was changed on its disk: the manifest's digest or the layer's tells, the store stays empty."""
    put("a", tar().file("large", _noise(6, 1 << 20)).bytes())
    blobs = sorted((registry.directory / "data").rglob("blobs/sha256/*/*/data"), key=lambda path: path.stat().st_size)
    raw = bytearray(blobs[-1].read_bytes())
    raw[len(raw) // 2] ^= 1
    blobs[-1].write_bytes(raw)
    with pytest.raises(ImageError, match=r"came damaged|is damaged"):
        pull(store, f"{registry.host}/a", _SETTINGS)
    assert store.ls() == ()
    assert os.listdir(home / "images/layers") == []
    assert not [name for name in os.listdir(home / "images/packed") if not name.endswith(".part")]


def test_more_than_the_operator_allows_is_not_fetched(registry: Any, put: Any, home: Path, tar: Any) -> None:
    """The manifest tells how much it would be."""
    put("a", tar().file("large", _noise(7, 1 << 20)).bytes())
    with pytest.raises(ImageError, match=r"its layers have 10\d+ bytes, more than 1000000"):
        pull(ImageStore(home, ImportLimits(bytes=10**6)), f"{registry.host}/a", _SETTINGS)
    with pytest.raises(ImageError, match="more than 100 bytes"):
        pull(ImageStore(home, ImportLimits(json_bytes=100)), f"{registry.host}/a", _SETTINGS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("HOST/nope", "HOST does not have it; is the name right"),
        ("HOST/a:nope", "HOST does not have it"),
        ("HOST/a@sha256:" + "0" * 64, "HOST does not have it"),
        ("127.0.0.1:1/a", "Connection refused; is 127.0.0.1:1 reachable"),
        ("no-such-host.invalid/a", "is no-such-host.invalid reachable"),
        ("host", "is no image of a registry"),
        ("./here", "is no image of a registry"),
        ("HOST/UPPER", "is no image of a registry; .*the name in lower case"),
    ],
)
def test_what_cannot_be_pulled_says_why(
    name: str, message: str, registry: Any, put: Any, store: ImageStore, tar: Any
) -> None:
    """With the image, the registry and what helps."""
    put("a", tar().file("x").bytes())
    with pytest.raises(ImageError, match=message.replace("HOST", registry.host)):
        pull(store, name.replace("HOST", registry.host), _SETTINGS)
    assert store.ls() == ()


def test_a_mirror_is_asked_first_and_the_registry_itself_for_what_that_lacks(
    registry: Any, start_registry: Any, put: Any, store: ImageStore, tar: Any, skopeo: Any
) -> None:
    """Where both fail, both are told."""
    mirror = start_registry()
    settings = RegistrySettings(mirrors={registry.host: (mirror.host,)})
    digest = put("a", tar().file("a").bytes())
    put("b", tar().file("b").bytes())
    skopeo("copy", f"docker://{registry.host}/a", f"docker://{mirror.host}/a")
    pull(store, f"{registry.host}/b", settings)
    registry.stop()
    assert pull(store, f"{registry.host}/a", settings).image.digest == digest
    with pytest.raises(ImageError, match=rf"Connection refused.*; mirror {mirror.host}: .*does not have it"):
        pull(store, f"{registry.host}/c", settings)
