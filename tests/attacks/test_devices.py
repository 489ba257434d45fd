"""K11 for a job that has devices: what is on its list it may use, anything else not even with a node."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime import operations, rootfs
from dayfly.runtime.shape import Device, Mount, Workspace

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]

_OPENS = """
tell({path: [tries(os.open, path, os.O_RDONLY), tries(os.open, path, os.O_WRONLY)] for path in sys.argv[1:]})
"""


@pytest.mark.host_root("devices are given by host root, which alone lists them")
def test_k11_a_node_that_is_not_on_the_list_does_not_open(
    attack: Attack, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second node, made by a fault of ours or of the host's root, is refused by the kernel while it is not listed."""
    real = rootfs.kernel_operations

    def with_another(*arguments: Any) -> list[operations.Operation]:
        return [*real(*arguments), operations.Node("dev/other", 1, 11)]  # kmsg: reading it would tell of the host

    monkeypatch.setattr("dayfly.runtime.init.kernel_operations", with_another)
    listed = Device("c", 1, 7, "rw", "/dev/listed")
    held = attack(_OPENS, "/dev/listed", "/dev/other", devices=(listed,))
    bit = attack(_OPENS, "/dev/listed", "/dev/other", devices=(listed,), without=("devices",))
    tally.judge(
        held=held == {"/dev/listed": [0, 0], "/dev/other": [errno.EPERM] * 2},
        bit=bit["/dev/other"][1] == 0,
        seen=(held, bit),
    )


@pytest.mark.host_root("devices are given by host root, which alone lists them")
def test_k11_a_device_to_read_is_not_written_to(attack: Attack, tally: Any, tmp_path: Path) -> None:
    """The list has the permissions, so that a node whose mode the job changes gives no more."""
    null, chmod = Device("c", 1, 11, "r", "/dev/log"), "os.chmod('/dev/log', 0o666)\n"
    held = attack(chmod + _OPENS, "/dev/log", devices=(null,))["/dev/log"]
    bit = attack(chmod + _OPENS, "/dev/log", devices=(null,), without=("devices",))["/dev/log"]
    tally.judge(held=held[1] == errno.EPERM, bit=bit[1] == 0, seen=(held, bit))


@pytest.mark.host_root("devices are given by host root, which alone lists them")
def test_k11_a_device_of_one_job_is_not_the_next_ones(attack: Attack, tally: Any) -> None:
    """Nodes are the container's: the job after it has neither the node nor, made for it by hand, the right."""
    mine = Device("c", 1, 7, "rw", "/dev/mine")
    bit = attack(_OPENS, "/dev/mine", devices=(mine,))
    held = attack(_OPENS, "/dev/mine")
    tally.judge(held=held == {"/dev/mine": [errno.ENOENT] * 2}, bit=bit == {"/dev/mine": [0, 0]}, seen=(held, bit))


@pytest.mark.host_root("devices are given by host root, which alone lists them")
def test_k11_a_node_on_what_a_job_is_given_does_not_open(attack: Attack, tally: Any, tmp_path: Path) -> None:
    """Nodes in a directory, a writable mount and an image are dead there (nodev)."""
    for name in ("work", "data"):
        (tmp_path / name).mkdir()
        os.mknod(tmp_path / name / "full", 0o020666, os.makedev(1, 7))
        (tmp_path / name / "full").chmod(0o666)
    given = {
        "workspace": Workspace(source=str(tmp_path / "work")),
        "mounts": (Mount(source=str(tmp_path / "data"), target="/data", writable=True),),
    }
    paths = ("/workspace/full", "/data/full")
    held = attack(_OPENS, *paths, **given)
    with pytest.MonkeyPatch.context() as patch:
        for flag in ("MOUNT_ATTR_NODEV", "MS_NODEV"):
            patch.setattr(operations.sys, flag, 0)
        bit = attack(_OPENS, *paths, **given)
    tally.judge(
        held=list(held.values()) == [[errno.EACCES] * 2] * 2,
        bit=list(bit.values()) == [[0, 0]] * 2,
        seen=(held, bit),
    )
