"""The end of `dayfly run`: whatever cannot be handed over, the rest is, and the job's own exit code is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.face.conftest import Command

pytestmark = pytest.mark.kernel


def test_a_stdout_that_takes_nothing_ends_job_and_us(dayfly: Command) -> None:
    """A full disk under our stdout is named, and the job, whose log nobody gets, is cancelled: 125."""
    with open("/dev/full", "wb") as full:
        running = dayfly.start("run", "--", "sh", "-c", "echo x; exec sleep 60", stdout=full)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == 125
    assert dayfly.own_lines(stderr)[1:] == [
        "dayfly: cannot write to stdout: No space left on device; is its disk full?"
    ]
    assert dayfly("wait", "@last").returncode == 130


def test_a_result_that_cannot_be_printed_does_not_keep_the_artifacts(dayfly: Command, tmp_path: Path) -> None:
    """Whatever of the end fails, the rest of it is done: 125 for a job that had succeeded, else the job's own code."""
    for script, code in (("echo x > made", 125), ("echo x > made; exit 3", 3)):
        out = tmp_path / str(code)
        with open("/dev/full", "wb") as full:
            arguments = ("run", "--json", "--artifact", "made", "--out", str(out), "--", "sh", "-c", script)
            running = dayfly.start(*arguments, stdout=full, cwd=tmp_path)
            _, stderr = running.communicate(timeout=60)
        assert running.returncode == code
        assert b"cannot write to stdout" in stderr
        assert (out / "made").read_text() == "x\n"


def test_failed_jobs_of_a_file_are_summed_up_as_single_ones(dayfly: Command) -> None:
    """Each says in its headline, after all have ended and in the file's order, what became of it."""
    lines = "".join(
        json.dumps({"name": f"n{code}", "command": ["sh", "-c", f"sleep {delay}; exit {code}"]}) + "\n"
        for code, delay in ((3, 1), (0, 0), (5, 0))
    )
    done = dayfly("run", "--json", "-f", "-", stdin=lines.encode())
    said = dayfly.own_lines(done.stderr)
    assert "(n3) failed with exit code 3 after" in said[-2]
    assert "(n5) failed with exit code 5 after" in said[-1]
    assert [json.loads(line)["exit_code"] for line in done.stdout.splitlines()] == [3, 0, 5]
    assert sum("network: none" in line for line in said) == 1


def test_artifacts_that_cannot_be_delivered_keep_neither_result_nor_exit_code(dayfly: Command, tmp_path: Path) -> None:
    """--result is written, each artifact that failed is named, and 125 stands for success only."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").write_text("in the way")
    for code, ours in ((0, 125), (3, 3)):
        script = f"mkdir -p sub; echo x > sub/a; echo y > b; exit {code}"
        where = ("--out", str(tmp_path / "out"), "--result", str(tmp_path / "r.json"))
        done = dayfly("run", "--artifact", "**", *where, "--", "sh", "-c", script, cwd=tmp_path)
        assert done.returncode == ours
        assert json.loads((tmp_path / "r.json").read_text())["exit_code"] == code
        assert any("out/sub/a: Not a directory" in line for line in dayfly.own_lines(done.stderr))
        assert (tmp_path / "out/b").read_text() == "y\n"
