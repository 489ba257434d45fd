"""The kernel tests on a host with cgroup v2 alone, whatever this machine has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

GUEST = Path(__file__).parent / "run"
_TESTS = ("tests/runtime/cgroups", "tests/runtime/container")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kernel_tests_pass_on_cgroup_v2(need_tool: Callable[[str], str], tmp_path: Path) -> None:
    """The kernel tests pass in user-mode Linux with cgroup v2 alone; `run --faithful` is a command of its own."""
    for program in ("linux.uml", "mke2fs"):
        need_tool(program)
    environment = {**os.environ, "PYTHON": sys.executable, "TMPDIR": str(tmp_path), "DAYFLY_GUEST_SECONDS": "1500"}
    with (tmp_path / "console").open("w+") as console:
        ended = subprocess.run([GUEST, *_TESTS], env=environment, stdout=console, stderr=subprocess.STDOUT)
        console.seek(0)
        assert ended.returncode == 0, console.read()[-8000:]
