"""`dayfly run --debug`: how the container is made, in words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.face.conftest import Command

pytestmark = pytest.mark.kernel


def test_debug_prints_the_plan_of_the_container_before_the_job_runs(dayfly: Command, tmp_path: Path) -> None:
    """Each step describes itself on stderr, with what this very job has; the job's own streams are untouched."""
    (tmp_path / "src").mkdir()
    directory = f"{tmp_path}/src"
    flags = ("--debug", "--network", "none", "--pids", "77", "--dir", directory)
    done = dayfly("run", *flags, "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.returncode) == (b"out\n", 0), done.stderr
    plan, _, after = done.stderr.decode().partition("err\n")
    steps = [line.removeprefix("dayfly: ") for line in plan.splitlines()]
    for expected in (
        "make a control group: .*pids 77",
        "mask .*proc/kcore",
        "pivot into root",
        f"give the directory {directory} to the job",
        "execute 'sh' '-c' 'echo out; echo err >&2'",
    ):
        assert any(re.match(expected, step) for step in steps), (expected, steps)
    assert steps[-1].startswith("execute")
    assert "dayfly: " not in after
