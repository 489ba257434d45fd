"""The list of devices, asked of the kernel: by version 1's controller and by our program on version 2."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups import controlfile, devices, mounts, tasks, v1
from dayfly.runtime.cgroups.hierarchy import Hierarchy
from dayfly.runtime.shape import Device

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("nothing_left")]

_NULL, _ZERO = Device("c", 1, 3), Device("c", 1, 5)
_READ, _WRITE = os.O_RDONLY, os.O_WRONLY


def _errno_of(function: Callable[..., Any], *arguments: Any) -> int:
    try:
        function(*arguments)
    except OSError as error:
        return error.errno or -1
    return 0


def _look() -> list[int]:
    """The errno of reading null, writing null, reading zero, reading full."""
    wanted = (("/dev/null", _READ), ("/dev/null", _WRITE), ("/dev/zero", _READ), ("/dev/full", _READ))
    return [_errno_of(os.open, path, flags) for path, flags in wanted]


@pytest.fixture
def in_version_2(token: str, lacks: Callable[[str], None]) -> Iterator[tuple[int, str, int]]:
    """A bare group of version 2, which a hybrid host has too: its descriptor, its path, and how to join it."""
    mounted = mounts.cgroup_mounts(mounts.read_text("/proc/self/mountinfo"))
    unified = next((each.path for each in mounted if each.version == 2), None) or lacks("a mount of cgroup2")
    directory = Path(f"{unified}/dayfly-test-{token}")
    directory.mkdir()
    fd, join = os.open(directory, os.O_RDONLY), os.open(directory / "cgroup.procs", os.O_RDWR)
    yield fd, str(directory), join
    os.close(fd)
    os.close(join)
    directory.rmdir()


@pytest.mark.parametrize(
    ("listed", "seen"),
    [
        ([_NULL], [0, 0, errno.EPERM, errno.EPERM]),
        ([Device("c", 1, 3, "r")], [0, errno.EPERM, errno.EPERM, errno.EPERM]),
        ([Device("c", 1, 3, "w"), _ZERO], [errno.EPERM, 0, 0, errno.EPERM]),
        ([Device("c", 1, None, "r")], [0, errno.EPERM, 0, 0]),
        ([Device("b", 1, 3), Device("c", 2, 3), Device("c", 1, 4)], [errno.EPERM] * 4),
        ([], [errno.EPERM] * 4),
    ],
)
def test_what_is_not_on_the_list_does_not_open(
    hierarchy: Hierarchy,
    token: str,
    in_child: Callable[..., Any],
    in_version_2: tuple[int, str, int],
    listed: list[Device],
    seen: list[int],
) -> None:
    """Kind, major, minor and each permission count, alike in both versions; without a list everything opens."""
    assert in_child(_look) == [0] * 4
    group = hierarchy.create(token, with_devices=True)
    group.restrict(listed)

    def from_within(joins: list[int]) -> list[int]:
        tasks.join(joins)
        return _look()

    assert in_child(lambda: from_within(group.joins)) == seen
    assert group.discard()
    fd, directory, join = in_version_2
    devices.restrict_v2(fd, directory, listed)
    assert in_child(lambda: from_within([join])) == seen


def test_nodes_are_made_only_with_the_permission(
    in_child: Callable[..., Any], in_version_2: tuple[int, str, int], tmp_path: Path
) -> None:
    """`m` is what mknod(2) needs, even of the host's root."""
    fd, directory, join = in_version_2
    devices.restrict_v2(fd, directory, [Device("c", 1, 3, "rw"), Device("c", 1, 5, "m")])

    def make() -> list[int]:
        tasks.join([join])
        numbers = ((1, 3), (1, 5))
        return [_errno_of(os.mknod, tmp_path / f"{n}", stat.S_IFCHR | 0o600, os.makedev(*n)) for n in numbers]

    assert in_child(make) == [errno.EPERM, 0]


def test_what_is_added_to_a_list_goes_and_what_is_on_it_stays(hierarchy: Hierarchy, token: str) -> None:
    """Never for a moment is a device denied that is on the list: processes of the group run meanwhile."""
    if hierarchy.version != 1:
        pytest.skip("version 2 has programs, of which every one must agree")
    group = hierarchy.create(token, with_devices=True)
    assert isinstance(group, v1.Cgroup)
    directory = Path(group._directories["devices"])
    group.restrict([_NULL])
    before = (directory / "devices.list").read_text()
    for line in ("c 10:200 rwm", "c *:* m", f"c {_NULL.major}:{_NULL.minor} rwm"):
        (directory / "devices.allow").write_text(line)
    denied = []
    with pytest.MonkeyPatch.context() as patch:
        real = controlfile.write
        patch.setattr(controlfile, "write", lambda *words: (denied.append(words[3]), real(*words)))
        group.narrow([_NULL])
    assert (directory / "devices.list").read_text() == before
    assert set(denied) == {"c 10:200 rwm", "c *:* m", f"c {_NULL.major}:{_NULL.minor} m"}
    assert group.discard()


def test_a_group_without_a_list_has_no_directory_for_one(hierarchy: Hierarchy, token: str) -> None:
    """What a job does not ask for costs it nothing: no tree is made, on version 1, until the first job asks."""
    if hierarchy.version != 1:
        pytest.skip("version 2 has one tree for everything")
    group = hierarchy.create(token)
    assert not any("/devices/" in path and hierarchy.name in path for path in _cgroup_paths())
    with pytest.raises(HostError, match="devices"):
        group.restrict([_NULL])
    assert group.discard()


def test_what_a_dead_keeper_left_of_a_list_is_found_and_removed(hierarchy: Hierarchy, token: str) -> None:
    """The sweeper finds the directory by the token, as the other trees'."""
    group = hierarchy.create(token, with_devices=True)
    group.restrict([_NULL])
    group.close()
    assert hierarchy.existing() == [token]
    assert hierarchy.remove(token)
    assert not any(token in path for path in _cgroup_paths())


def _cgroup_paths() -> list[str]:
    return [parent for parent, _, _ in os.walk("/sys/fs/cgroup")]


def test_a_program_that_the_kernel_refuses_is_told(in_version_2: tuple[int, str, int], tmp_path: Path) -> None:
    """What is no control group cannot take a list: the error names it, and nothing runs without its list."""
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(HostError, match="limit the devices of"):
            devices.restrict_v2(fd, str(tmp_path), [_NULL])
    finally:
        os.close(fd)
    assert devices.why_lacking_v2(in_version_2[1]) is None
    assert "attaches no BPF program" in (devices.why_lacking_v2(str(tmp_path)) or "")
