"""Where groups may lie: mounts as the kernel lists them, and delegation as systemd marks it."""

import os
from pathlib import Path

import pytest

from dayfly.jobs.errors import Unsupported
from dayfly.runtime.cgroups import delegation, mounts

MOUNTINFO = """\
23 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
30 31 0:30 /docker/7f /sys/fs/cgroup/part rw shared:9 - cgroup cgroup rw,cpu,cpuacct
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:1 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/with\\040space rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def test_mounts_are_read_with_their_controllers() -> None:
    """Controllers mounted together share one mount; names with spaces are whole; whole trees come first."""
    found = mounts.cgroup_mounts(MOUNTINFO)
    assert [(each.path, each.version) for each in found] == [
        ("/sys/fs/cgroup/cpu,cpuacct", 1),
        ("/sys/fs/cgroup/with space", 1),
        ("/sys/fs/cgroup/systemd", 1),
        ("/sys/fs/cgroup/unified", 2),
        ("/sys/fs/cgroup/part", 1),
    ]
    assert {"cpu", "cpuacct"} <= found[0].controllers
    assert found[-1].root == "/docker/7f"


def test_our_own_group() -> None:
    """The line of version 2, whatever the others say."""
    assert mounts.own_group("4:memory:/a\n0::/user.slice/x.scope\n") == "/user.slice/x.scope"
    assert mounts.own_group("4:memory:/a\n") == "/"


def _mark(directory: Path) -> None:
    try:
        os.setxattr(directory, "user.delegate", b"1")
    except OSError:
        pytest.skip("this file system has no extended attributes")


def test_the_nearest_marked_group_is_ours(tmp_path: Path) -> None:
    """systemd's mark decides, above or at our own group."""
    own = tmp_path / "system.slice" / "dayfly.service" / "dayfly-agent"
    own.mkdir(parents=True)
    _mark(tmp_path / "system.slice" / "dayfly.service")
    found = delegation.find_base(str(tmp_path), "/system.slice/dayfly.service/dayfly-agent", is_root=False)
    assert found == str(tmp_path / "system.slice" / "dayfly.service")


def test_root_without_a_mark_uses_the_top(tmp_path: Path) -> None:
    """As Docker's cgroupfs driver does."""
    (tmp_path / "user.slice").mkdir()
    assert delegation.find_base(str(tmp_path), "/user.slice", is_root=True) == str(tmp_path)


def test_an_ordinary_user_without_a_mark_has_none(tmp_path: Path) -> None:
    """The error says how to get one."""
    with pytest.raises(Unsupported, match="Delegate=yes"):
        delegation.find_base(str(tmp_path), "/user.slice", is_root=False)


def test_what_is_not_offered_is_lacking(tmp_path: Path) -> None:
    """Controllers that the group does not have are named with the reason, the others are handed on."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    lacking = delegation.hand_on(str(tmp_path), ("cpu", "memory", "pids"))
    assert set(lacking) == {"pids"}
    assert (tmp_path / "cgroup.subtree_control").read_text().startswith("+memory")
