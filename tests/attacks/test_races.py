"""What an image or a neighbour can try while a container is being made, by being faster: R3, R4, R7 of the list."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime import inputs, rootfs, syscalls
from dayfly.runtime.operations import Mask, Move
from dayfly.runtime.shape import Mount

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]
Run = Callable[..., Any]

_SECONDS = 15.0  # of racing
_RENAMEAT2, _EXCHANGE = (316 if os.uname().machine == "x86_64" else 276), 2


def _image_with_links(tmp_path: Path) -> tuple[Path, Path]:
    """A layer whose /dev/null, /dev/console and /dev/pts/0 are links to a file of the host, and that file."""
    canary = tmp_path / "canary"
    canary.write_text("canary\n")
    dev = tmp_path / "layer" / "dev"
    (dev / "pts").mkdir(parents=True)
    for name in ("null", "console", "pts/0"):
        (dev / name).symlink_to(canary)
    return tmp_path / "layer", canary


_LOOK = "tell([open('/proc/keys').read(), os.path.islink('/dev/null'), os.path.lexists('/dev/console')])"


def test_r3_masks_do_not_come_from_the_image(
    attack: Attack, tally: Any, tmp_path: Path, shape: Any, exchanging: Callable[..., Any]
) -> None:
    """CVE-2025-31133: /dev/null of the image, link and file in turn while we mount, is never what a mask is made of."""
    layer, canary = _image_with_links(tmp_path)
    (layer / "dev" / "other").write_text("")
    layers = (str(layer), *shape.image_layers)
    seen = set()
    with exchanging(layer / "dev" / "null", layer / "dev" / "other") as swaps:
        end = time.monotonic() + _SECONDS / 4
        while time.monotonic() < end:
            seen.add(tuple(attack(_LOOK, image_layers=layers)))
    assert swaps[0] > 1000
    if not (layer / "dev" / "null").is_symlink():
        (layer / "dev" / "other").rename(layer / "dev" / "null")
    with pytest.MonkeyPatch.context() as patch:  # masks out of the image's own /dev/null
        patch.setattr(rootfs, "Mask", lambda path, null, empty: Mask(path, str(layer / "dev/null"), empty))
        bit = attack(_LOOK, image_layers=layers)
    assert canary.read_text() == "canary\n"
    tally.judge(held=seen == {("", False, False)}, bit=bit[0] == "canary\n", seen=(seen, bit))


def test_r4_no_console_comes_from_the_image(attack: Attack, tally: Any, tmp_path: Path, shape: Any) -> None:
    """CVE-2025-52565: /dev/console and /dev/pts/0 of the image are neither mounted on nor seen."""
    layer, canary = _image_with_links(tmp_path)
    look = "tell([os.path.lexists(path) for path in ('/dev/console', '/dev/pts/0')])"
    layers = (str(layer), *shape.image_layers)
    held = attack(look, image_layers=layers)
    with pytest.MonkeyPatch.context() as patch:  # the image's own /dev is left as it is, less what a job needs to start
        patch.setattr(rootfs, "Move", lambda source, target: Move(source, target if source != "dev" else "root/mnt"))
        patch.setattr(
            "dayfly.runtime.container.layout",
            lambda trees: tuple(each for each in rootfs.layout(trees) if each.path != "root/upper/dev"),
        )
        (layer / "dev" / "null").unlink()
        (layer / "dev" / "null").write_text("")
        bit = attack(look, image_layers=layers)
    assert canary.read_text() == "canary\n"
    tally.judge(held=held == [False, False], bit=bit == [True, True], seen=(held, bit))


_SWAPPER = f"""
os.chdir("/shared")
os.mkdir("place"); os.symlink(sys.argv[1], "way-out")
tell("ready")
while True:
    call({_RENAMEAT2}, -100, b"place", -100, b"way-out", {_EXCHANGE})
"""


@pytest.mark.host_root("what others may not write cannot be mounted to be written there")
def test_r7_a_mount_does_not_follow_a_neighbours_link(
    begin: Callable[..., Any], run: Run, tally: Any, tmp_path: Path
) -> None:
    """CVE-2021-30465, CVE-2024-45310: one job swaps a directory of a shared mount for a link out, another one mounts
    something below it: nothing of the host is mounted over, nothing appears there."""
    shared, given, outside = (tmp_path / name for name in ("shared", "given", "outside"))
    for path in (shared, given, outside):
        path.mkdir()
    mounts = (
        Mount(source=str(shared), target="/shared", writable=True),
        Mount(source=str(given), target="/shared/place/below/here"),
    )
    begin(_SWAPPER, str(outside), mounts=mounts[:1]).told()
    tries = faults = 0
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        tries += 1
        faults += not _starts(run, mounts)
    assert tries > 5
    held = list(outside.iterdir())
    with pytest.MonkeyPatch.context() as patch:  # a target looked up without RESOLVE_IN_ROOT
        patch.setattr(inputs.syscalls, "openat2", _openat_by_path)
        while not list(outside.iterdir()) and time.monotonic() < end + _SECONDS:
            _starts(run, mounts)
    tally.judge(held=held == [], bit=list(outside.iterdir()) != [], seen=(held, tries, faults))


def _starts(run: Run, mounts: tuple[Mount, ...]) -> bool:
    """Whether such a job starts; it does not when it meets the link in the middle of a lookup."""
    try:
        run("true", mounts=mounts).container.discard()
    except HostError:
        return False
    return True


def _openat_by_path(above: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    if above == syscalls.AT_FDCWD:
        return os.open(path, flags | os.O_CLOEXEC)
    return os.open(path.lstrip("/"), flags | os.O_CLOEXEC, dir_fd=above)
