"""What the store takes, and what of it goes: by need, by use, by room."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.images import keeping
from dayfly.runtime.images.history import history, inspect
from dayfly.runtime.images.keeping import Keeping, Room
from dayfly.runtime.images.store import ImageStore


@pytest.fixture
def images(store: ImageStore, tar: Any, layout: Any) -> Callable[[str], Any]:
    """Imports an image of a shared layer and one of its own."""

    def make(name: str) -> Any:
        shared, own = tar().file("shared", b"s" * 5000).bytes(), tar().file(name, b"o" * 3000).bytes()
        return store.import_(layout.index(layout.image([shared, own])), name).image

    return make


def _keeping(store: ImageStore, *used: str) -> Keeping:
    return Keeping(store, lambda: used)


def test_shared_layers_count_once(store: ImageStore, images: Any) -> None:
    """Two images of a common layer have three; a job's layers are not idle."""
    first = images("first")
    images("second")
    used = _keeping(store, *first.layers).usage()
    assert (used.images, used.layers, used.unneeded_bytes) == (2, 3, 0)
    assert (used.layers_bytes, used.idle_bytes) == (11_000, 3000)
    store.forget("second")
    assert _keeping(store).usage().unneeded_bytes == 3000
    assert _keeping(store).prune_unneeded() >= 3000
    assert _keeping(store).usage().layers == 2


def test_prune_takes_what_lost_its_name_and_more_only_when_told(store: ImageStore, images: Any, tar: Any) -> None:
    """An image whose name means another by now may be pinned by a job that is queued: it goes when somebody prunes."""
    images("first")
    (Path(store.root).parent / "root.tar").write_bytes(tar().file("x").bytes())
    store.import_(str(Path(store.root).parent / "root.tar"), "first")
    names = [entry.name for entry in store.ls()]
    assert len(names) == 2
    _keeping(store).prune_unneeded()
    assert [entry.name for entry in store.ls()] == names
    _keeping(store).prune()
    assert [entry.name for entry in store.ls()] == ["first"]
    kept = images("used")
    _keeping(store, *kept.layers).prune(with_named=True)
    assert [entry.name for entry in store.ls()] == ["used"]
    _keeping(store).prune(with_named=True)
    assert os.listdir(f"{store.root}/layers") == []


def test_where_room_is_short_the_least_recently_used_go_first(
    store: ImageStore, images: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until there is enough, and never one that a job uses; packed layers before all."""
    made = {name: images(name) for name in ("first", "second", "third", "fourth")}
    for number, name in enumerate(made):
        os.utime(f"{store.root}/refs/{name}", (number, number))
    store.mark_used("first")
    (Path(store.root) / "packed" / ("0" * 64)).write_bytes(b"x" * 100)
    room = {"used": 0.95}

    def used(path: str) -> Room:
        return Room(room["used"] - 0.03 * (4 - len(store.ls())), 0.1)

    monkeypatch.setattr(keeping.Room, "of", used)
    assert _keeping(store).make_room(high=0.96, low=0.9) == 0
    assert len(store.ls()) == 4
    in_use = made["second"].layers
    assert _keeping(store, *in_use).make_room(high=0.9, low=0.9) > 0
    assert [entry.name for entry in store.ls()] == ["first", "second"]
    assert os.listdir(f"{store.root}/packed") == []
    room["used"] = 2.0
    _keeping(store, *in_use).make_room(high=0.9, low=0.9)
    assert [entry.name for entry in store.ls()] == ["second"]


def test_inodes_count_as_bytes_do(tmp_path: Path) -> None:
    """A file system may have too few of either."""
    assert Room(0.1, 0.95).is_above(0.9)
    assert Room(0.95, 0.1).is_above(0.9)
    assert not Room(0.5, 0.5).is_above(0.9)
    here = Room.of(str(tmp_path))
    assert 0 <= here.bytes_used <= 1
    assert 0 <= here.inodes_used <= 1


def test_history_tells_of_each_layer(store: ImageStore, tar: Any, layout: Any) -> None:
    """The newest first; of what the history is silent about there is the layer; rubbish in it is no text."""
    tars = [tar().file(str(number), b"x" * number).bytes() for number in range(3)]
    descriptor = layout.image(tars)
    import json

    manifest = json.loads((layout.path / "blobs" / descriptor["digest"].replace(":", "/")).read_text())
    config = json.loads((layout.path / "blobs" / manifest["config"]["digest"].replace(":", "/")).read_text())
    config["history"] = [
        {"created_by": "ADD", "created": "2026-01-01T00:00:00Z"},
        {"created_by": "ENV A=b", "empty_layer": True},
        {"created_by": 7, "comment": "c"},
        "rubbish",
    ]
    manifest["config"] = layout.blob(json.dumps(config).encode(), manifest["config"]["mediaType"])
    image = layout.blob(json.dumps(manifest).encode(), descriptor["mediaType"])
    store.import_(layout.index(image), "image")
    steps = history(store, "image")
    assert [(step.created_by, step.comment, step.size_bytes) for step in steps] == [
        ("", "c", 2),
        ("ENV A=b", "", 0),
        ("ADD", "", 1),
        ("", "its image does not tell of this layer", 0),
    ]
    assert [bool(step.layer) for step in steps] == [True, False, True, True]
    inspected = inspect(store, "image")
    assert (inspected["names"], len(inspected["layers"])) == (["image"], 3)
