"""The kernel tests on a host with cgroup v2 alone, whatever this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

GUEST = Path(__file__).parent / "run"
_TESTS = ("tests/runtime/cgroups", "tests/runtime/container", "tests/runtime/oci", "tests/attacks")
# crun, since it does not run on hosts with version 1; of its tests those that are about the runtime. `run` has all.
_CHOICE = ("-k", "not by-runc and (not by-crun or test_runtime)")
_ROOTLESS = "(not_limited or apart or sigkill) and not one_id"
_FAULTS = "tests/end_to_end/test_poor_hosts.py"
_TIMEOUT = ("--timeout", "300")  # well below the guest's own: a test that hangs there is to be named


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernel_tests_pass_on_cgroup_v2(need_tool: Callable[[str], str], tmp_path: Path) -> None:
    """The kernel tests pass in user-mode Linux with cgroup v2 alone; `run --faithful` is a command of its own."""
    _pass_in_guest(need_tool, tmp_path, (*_TESTS, *_CHOICE))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_faults_of_a_kernel_without_overlay_are_said(need_tool: Callable[[str], str], tmp_path: Path) -> None:
    """What no trick on this machine can take away from a kernel was never loaded into that one."""
    said = _pass_in_guest(
        need_tool, tmp_path, (_FAULTS, "-k", "kernel_without_overlay"), DAYFLY_GUEST_WITHOUT="overlay"
    )
    assert " skipped" not in said, said[-8000:]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_user_with_delegated_groups_has_limits(need_tool: Callable[[str], str], tmp_path: Path) -> None:
    """Version 2 has what version 1 cannot give to a user: a job of a rootless worker gets the limits that it states."""
    _pass_in_guest(need_tool, tmp_path, ("tests/rootless/test_user.py", "-k", _ROOTLESS))


def _pass_in_guest(
    need_tool: Callable[[str], str], tmp_path: Path, arguments: tuple[str, ...], **environment: str
) -> str:
    for program in ("linux.uml", "mke2fs"):
        need_tool(program)
    environment = {"PYTHON": sys.executable, "TMPDIR": str(tmp_path), "DAYFLY_GUEST_SECONDS": "1500", **environment}
    with (tmp_path / "console").open("w+") as console:
        ended = subprocess.run(
            [GUEST, *arguments, *_TIMEOUT], env={**os.environ, **environment}, stdout=console, stderr=subprocess.STDOUT
        )
        console.seek(0)
        said = console.read()
    assert ended.returncode == 0, said[-8000:]
    return said
