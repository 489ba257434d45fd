"""`dayfly run` on a machine that has nothing yet: no Redis configured, no worker, an empty home."""

from __future__ import annotations

import glob
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dayfly.worker.settings import WorkerSettings

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_DAYFLY = [sys.executable, "-m", "dayfly"]


@pytest.fixture
def environment(home: Path, nothing_left: None, tmp_path: Path, lacks: Any) -> Iterator[dict[str, str]]:
    """An empty home; whatever `dayfly run` starts in it is stopped at the end, and leaves no job behind."""
    if os.geteuid() != 0:
        lacks("root")
    environment = {**os.environ, "DAYFLY_HOME": str(home)}
    yield environment
    subprocess.run([*_DAYFLY, "down", "--now"], env=environment, check=True, timeout=60, capture_output=True)
    assert not [path for name in ("jobs", "trash") for path in (home / name).glob("*")]
    tag = WorkerSettings(home, "", "").cgroup_tag
    assert not glob.glob(f"/sys/fs/cgroup/**/dayfly-{tag}", recursive=True)


def test_a_pipeline_around_the_first_run_ends_by_itself(environment: dict[str, str], tmp_path: Path) -> None:
    """Nothing that the first run starts keeps the pipe of its caller open."""
    command = f"timeout 20 sh -c '{' '.join(_DAYFLY)} run -- true | cat'"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0


def test_ten_first_runs_at_once_all_succeed(environment: dict[str, str], tmp_path: Path) -> None:
    """Ten runs at the same moment in an empty home share one stack, and each gets its own job's output and code."""
    runs = [
        subprocess.Popen(
            [*_DAYFLY, "run", "-q", "--", "sh", "-c", f"echo {number}; exit {number}"],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(10)
    ]
    ended = [(*run.communicate(timeout=120), run.returncode) for run in runs]
    assert ended == [(f"{number}\n", "", number) for number in range(10)]


@pytest.mark.timeout(120)
def test_a_job_whose_client_was_killed_is_cancelled_within_its_lease(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """SIGKILL of `dayfly run`: within 30 s and a little its job is cancelled, and the record says why."""
    run = subprocess.Popen(
        [*_DAYFLY, "run", "--no-dir", "--", "sh", "-c", "echo ready; exec sleep 300"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    run.send_signal(signal.SIGKILL)
    run.communicate(timeout=10)
    # The lease, what the job takes to end, and what a busy machine takes to notice.
    wait = subprocess.run([*_DAYFLY, "wait", "@last"], env=environment, check=False, timeout=60, capture_output=True)
    assert wait.returncode == 130
    status = subprocess.run([*_DAYFLY, "status", "--json", "@last"], env=environment, check=True, capture_output=True)
    result = json.loads(status.stdout)
    assert (result["outcome"], result["reason"]) == ("cancelled", "client_lost")
    print(f"the job ran {result['timings']['run_seconds']:.1f} s")


def test_the_stack_is_none_of_its_callers_processes(environment: dict[str, str], tmp_path: Path) -> None:
    """A CI step's session, environment and directory stay free: the worker has none of them."""
    marked = {**environment, "BUILD_ID": "7", "JENKINS_NODE_COOKIE": "x"}
    subprocess.run([*_DAYFLY, "run", "-q", "--", "true"], env=marked, cwd=tmp_path, check=True, timeout=60)
    pid = int((Path(environment["DAYFLY_HOME"]) / "run/worker.lock").read_text())
    environ = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"BUILD_ID" not in environ
    assert b"JENKINS_NODE_COOKIE" not in environ
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    pidfd = os.pidfd_open(pid)
    assert not select.select([pidfd], [], [], 0)[0], "the stack ended with its caller"
    os.close(pidfd)
