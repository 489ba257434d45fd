"""A job holds the default capabilities at most, and none in a set that it could pass on."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from dayfly.runtime import capabilities

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("needs_root")]

DEFAULT = 0x800405FB
"""CapEff of a process in a default container of Podman's."""
DOCKER, NOMAD = 0xA80425FB, 0xA80405FB


def _sets() -> dict[str, int]:
    with open("/proc/self/status") as status:
        return {line[:6]: int(line[8:], 16) for line in status if line.startswith("Cap")}


def test_the_default_is_podmans_which_is_the_least_that_a_package_manager_needs() -> None:
    """Nothing that Docker or Nomad do without either; and the kernel numbers the names as we do."""
    assert capabilities.DEFAULT_MASK == DEFAULT
    assert DEFAULT & ~DOCKER == DEFAULT & ~NOMAD == 0
    assert (capabilities.NUMBERS["CHOWN"], capabilities.NUMBERS["CHECKPOINT_RESTORE"]) == (0, 40)


def test_root_keeps_the_default_and_can_pass_nothing_on(in_child: Callable[..., Any]) -> None:
    """After the drop root has the default in bounding, permitted and effective; inheritable and ambient are empty."""

    def drop() -> dict[str, int]:
        capabilities.drop_bounding()
        capabilities.lower(capabilities.DEFAULT_MASK)
        return _sets()

    expected = {"CapBnd": DEFAULT, "CapPrm": DEFAULT, "CapEff": DEFAULT, "CapInh": 0, "CapAmb": 0}
    assert in_child(drop) == expected


def test_an_ordinary_user_has_none(in_child: Callable[..., Any]) -> None:
    """A job that is not root holds no capability, and its bounding set is the default."""

    def drop() -> dict[str, int]:
        capabilities.drop_bounding()
        os.setresgid(12345, 12345, 12345)
        os.setresuid(12345, 12345, 12345)
        capabilities.lower(0)
        return _sets()

    assert in_child(drop) == {"CapBnd": DEFAULT, "CapPrm": 0, "CapEff": 0, "CapInh": 0, "CapAmb": 0}


@pytest.mark.host_root("it leaves root for an id of the host's")
def test_the_bounding_set_cannot_be_cut_too_late(in_child: Callable[..., Any]) -> None:
    """After the user was set the cut fails loudly; it is never skipped."""

    def drop_too_late() -> bool:
        os.setresuid(12345, 12345, 12345)
        with pytest.raises(PermissionError):
            capabilities.drop_bounding()
        return True

    assert in_child(drop_too_late)


@pytest.mark.host_root("it leaves root for an id of the host's")
def test_what_was_dropped_does_not_come_back_by_exec(in_child: Callable[..., Any]) -> None:
    """A root program started after the drop holds no more than the default."""

    def drop_and_exec() -> str:
        capabilities.drop_bounding()
        capabilities.lower(capabilities.DEFAULT_MASK)
        reader, writer = os.pipe()
        command = ["/bin/grep", "CapEff", "/proc/self/status"]
        pid = os.posix_spawn(command[0], command, {}, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
        os.waitpid(pid, 0)
        return os.read(reader, 100).decode()

    assert int(in_child(drop_and_exec).split()[1], 16) == DEFAULT


def test_without_the_drop_a_child_holds_more(in_child: Callable[..., Any]) -> None:
    """The control: these tests would fail if nothing was dropped."""
    assert in_child(_sets)["CapEff"] & ~DEFAULT
