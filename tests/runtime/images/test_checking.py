"""Whatever is wrong in a store is found."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.images.checking import Check, Finding
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry.pulling import pull
from dayfly.runtime.registry.settings import RegistrySettings


@pytest.fixture
def pulled(store: ImageStore, registry: Any, put: Any, tar: Any) -> Any:
    """An image whose layers nobody packs as we do, of a registry."""
    below = tar().directory("etc").file("etc/gone").file("etc/kept", b"content", uid=7)
    put("x", below.bytes(), tar().file("etc/.wh.gone").symlink("l", "etc").bytes())
    return pull(store, f"{registry.host}/x", RegistrySettings()).image


def _found(store: ImageStore) -> list[Finding]:
    return list(Check(store).run())


def test_a_store_that_is_right_has_no_findings(store: ImageStore, pulled: Any, tmp_path: Path) -> None:
    """Of a registry, of a directory, and of nothing."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/file").write_text("x")
    store.import_(str(tmp_path / "root"), "directory")
    check = Check(store)
    assert list(check.run()) == []
    assert check.layers == 3
    assert list(Check(ImageStore(tmp_path / "empty")).run()) == []


def _content(store: ImageStore, image: Any) -> None:
    path = Path(image.layers[-1]) / "etc/kept"
    before = path.stat()
    path.write_text("CONTENT")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _packed(store: ImageStore, image: Any) -> None:
    path = max((Path(store.root) / "packed").iterdir(), key=lambda each: each.stat().st_size)
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)


def _manifest(store: ImageStore, image: Any) -> None:
    (Path(store.root) / "blobs" / image.digest.replace(":", "/")).write_text("{}")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_content, "it is not what was unpacked"),
        (lambda store, image: os.chown(Path(image.layers[-1]) / "etc/kept", 8, 0), "it is not what was unpacked"),
        (lambda store, image: os.unlink(Path(image.layers[0]) / "etc/gone"), "it is not what was unpacked"),
        (lambda store, image: os.rename(Path(image.layers[0]).parent, f"{store.root}/x"), "it is missing"),
        (lambda store, image: os.unlink(Path(image.layers[0]).parent / "layer.json"), "cannot read"),
        (_packed, "its bytes are"),
        (_manifest, "is damaged"),
        (lambda store, image: os.unlink(f"{store.root}/blobs/{image.digest.replace(':', '/')}"), "is missing"),
    ],
)
def test_what_is_wrong_is_found(
    harm: Callable[[ImageStore, Any], None], words: str, store: ImageStore, pulled: Any
) -> None:
    """A byte, an owner, a whiteout, a layer, its description, its packed form, its manifest."""
    harm(store, pulled)
    faults = [finding.what for finding in _found(store) if finding.is_fault]
    assert any(words in fault for fault in faults), faults


def test_what_cannot_be_compared_is_told_and_is_no_fault(store: ImageStore, pulled: Any) -> None:
    """Another program has packed it, and its packed layers were pruned."""
    for path in (Path(store.root) / "packed").iterdir():
        path.unlink()
    found = _found(store)
    assert [finding.is_fault for finding in found] == [False, False]
    assert "nothing is here to compare it with" in found[0].what


def test_a_tarball_is_compared_by_its_tree(store: ImageStore, tar: Any, tmp_path: Path) -> None:
    """Whoever has written it, and in whatever order."""
    digests = set()
    for number, order in enumerate(("ab", "ba")):
        made = tar(format=number)
        for name in order:
            made.file(name)
        (tmp_path / "root.tar").write_bytes(made.bytes())
        digests.add(store.import_(str(tmp_path / "root.tar"), f"image{number}").image.digest)
    assert len(digests) == 1
    assert _found(store) == []
