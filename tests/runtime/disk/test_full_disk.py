"""When a job's disk counts as full, or nearly."""

import os
from pathlib import Path

import pytest

from dayfly.runtime.disk import Disk, open_disk

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("needs_root", "has_loops", "nothing_left")]

MIB = 1 << 20


def _take(where: Disk, size_bytes: int) -> None:
    """Make a file of that size."""
    fd = os.open("file", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, dir_fd=where.mount_fd)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size_bytes", [8 * MIB, 1024 * MIB])
def test_more_than_there_is_in_one_fallocate_is_full(tmp_path: Path, size_bytes: int) -> None:
    """What the kernel had allocated by then stays in the file, so that the next look sees it."""
    disk = open_disk(str(tmp_path), size_bytes, "t")
    with pytest.raises(OSError, match="No space left"):
        _take(disk, 2 * size_bytes)
    disk.look()
    assert disk.was_full()
    disk.discard()


def test_a_disk_is_nearly_full_while_less_than_a_quarter_is_free(tmp_path: Path) -> None:
    """The last look decides, not the worst."""
    disk = open_disk(str(tmp_path), 32 * MIB, "t")
    _take(disk, 28 * MIB)
    assert not disk.is_nearly_full()
    disk.look()
    assert disk.is_nearly_full()
    os.unlink("file", dir_fd=disk.mount_fd)
    disk.look()
    assert not disk.is_nearly_full()
    disk.discard()
