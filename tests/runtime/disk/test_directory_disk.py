"""A disk without a limit: attached as the other kind is, and deleted whatever the job made of it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime.directory_disk import open_directory_disk
from dayfly.runtime.disk_template import Directory
from dayfly.runtime.removal import remove_tree

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("needs_root")]

LAYOUT = (Directory("root"), Directory("root/upper", 0o755, 1000), Directory("root/upper/tmp", 0o1777))


def test_its_directories_are_there_and_it_is_gone_after_discard(tmp_path: Path) -> None:
    """Modes and owners are those of the layout; nothing of it is left after discard, which may be called twice."""
    disk = open_directory_disk(str(tmp_path), "token", LAYOUT)
    upper = os.stat("root/upper", dir_fd=disk.mount_fd)
    assert (upper.st_mode & 0o7777, upper.st_uid) == (0o755, 1000)
    assert os.stat("root/upper/tmp", dir_fd=disk.mount_fd).st_mode & 0o7777 == 0o1777
    assert os.listdir(tmp_path / "disks") == ["token"]
    disk.discard()
    disk.discard()
    assert os.listdir(tmp_path / "disks") == []


def test_device_nodes_do_not_work_on_it(tmp_path: Path) -> None:
    """As on the other kind of disk."""
    disk = open_directory_disk(str(tmp_path), "token")
    os.mknod("null", 0o020666, os.makedev(1, 3), dir_fd=disk.mount_fd)
    with pytest.raises(PermissionError):
        os.open("null", os.O_RDWR, dir_fd=disk.mount_fd)
    disk.discard()


def test_one_is_never_used_twice(tmp_path: Path) -> None:
    """What another keeper has there is neither taken nor deleted."""
    first = open_directory_disk(str(tmp_path), "token", LAYOUT)
    with pytest.raises(HostError, match=r"token: File exists"):
        open_directory_disk(str(tmp_path), "token", LAYOUT)
    assert os.path.isdir(f"{first.path}/root/upper")
    first.discard()


@pytest.fixture
def chain() -> Callable[[Path, int], None]:
    """`chain(path, depth)` makes directories in directories there, deeper than any path may be long."""

    def make(path: Path, depth: int) -> None:
        path.mkdir()
        at = os.open(path, os.O_RDONLY)
        for _ in range(depth):
            os.close(os.open("file", os.O_CREAT, dir_fd=at))
            os.mkdir("d", dir_fd=at)
            below = os.open("d", os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        os.close(at)

    return make


@pytest.mark.attack("A9")
def test_a_chain_deeper_than_any_path_is_deleted(tmp_path: Path, chain: Callable[[Path, int], None]) -> None:
    """Neither the stack nor descriptors run out."""
    chain(tmp_path / "tree", 5000)
    before = len(os.listdir("/proc/self/fd"))
    assert remove_tree(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.attack("A9")
def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    """Links are deleted, not followed; odd names and kinds are names like others."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("kept")
    tree = tmp_path / "tree"
    (tree / "a/b/c").mkdir(parents=True)
    (tree / "a/link").symlink_to(tmp_path / "kept")
    (tree / "a/b/up").symlink_to("../../..")
    os.mkfifo(tree / "a/fifo")
    os.mkdir(os.fsencode(tree) + b"/\xff\n")
    assert remove_tree(str(tree))
    assert (tmp_path / "kept/file").read_text() == "kept"
    assert remove_tree(str(tree))


def test_deleting_ends_at_its_deadline_and_goes_on_later(tmp_path: Path, chain: Callable[[Path, int], None]) -> None:
    """False while something is left."""
    chain(tmp_path / "tree", 50)
    assert not remove_tree(str(tmp_path / "tree"), time.monotonic())
    assert (tmp_path / "tree/d/d/d/file").exists()
    assert remove_tree(str(tmp_path / "tree"))
