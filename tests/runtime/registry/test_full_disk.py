"""A pull that finds the disk full: it says so, the store holds nothing wrong, and with room it goes on."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.checking import Check
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry.pulling import pull
from dayfly.runtime.registry.settings import RegistrySettings

pytestmark = pytest.mark.kernel

_MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path, lacks: Callable[[str], NoReturn]) -> Iterator[Callable[[int], Path]]:
    """`small_disk(mebibytes)`: a file system of that size; called again, the same one with another size."""
    if os.geteuid():
        lacks("root, to mount a file system")
    point = tmp_path / "disk"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(point)], check=True)

    def resize(mebibytes: int) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={mebibytes}m", str(point)], check=True)
        return point

    yield resize
    subprocess.run(["umount", str(point)], check=True)


def _noise(size: int) -> bytes:
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(size // 32))


@pytest.mark.parametrize("mebibytes", [2, 6, 11])
def test_a_full_disk_is_told_and_gone_on_from(
    small_disk: Callable[[int], Path], mebibytes: int, registry: Any, put: Any, tar: Any
) -> None:
    """Full while the first layer comes, while the second comes, while it is unpacked; then given room."""
    layers = [tar().file(name, _noise(4 * _MIB) + name.encode()).bytes() for name in ("one", "two")]
    digest = put("app", *layers)
    store = ImageStore(small_disk(mebibytes))
    with pytest.raises(ImageError, match="No space left on device"):
        pull(store, f"{registry.host}/app", RegistrySettings())
    assert not list(Check(store).run())
    assert store.names.all() == {}
    assert os.listdir(small_disk(64) / "images/staging") == []
    assert pull(store, f"{registry.host}/app", RegistrySettings()).image.digest == digest
    assert not list(Check(store).run())
