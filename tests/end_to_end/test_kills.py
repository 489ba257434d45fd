"""Agent and launcher are killed at random moments with jobs running: the jobs do not notice."""

from __future__ import annotations

import os
import random
import select
import signal
from pathlib import Path
from typing import Any

import pytest

import dayfly
from dayfly.jobs.state import Outcome

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(600)]

_KILLS = 20
_LINES = 60
# The mark is written once per start: a job that was killed and run again would leave two.
_SCRIPT = f"""\
echo "start $DAYFLY_ATTEMPT" >> /marks/$DAYFLY_JOB_ID
for n in $(seq {_LINES}); do echo "line $n"; echo "err $n" >&2; sleep 0.03; done
seq 100000 > result
"""
_RESULT = b"".join(b"%d\n" % number for number in range(1, 100001))


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    path = tmp_path / "marks"
    path.mkdir()
    return path


def _submit(host: Any, marks: Path, count: int) -> list[dayfly.Job]:
    mounts = [{"source": str(marks), "target": "/marks", "writable": True}]
    document = {"command": ["sh", "-c", _SCRIPT], "mounts": mounts, "artifacts": ["result"]}
    return host.client.submit_many([document] * count)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _kill(host: Any, victim: str) -> None:
    if victim != "agent":
        for launcher in _children(host.worker.pid):
            os.kill(launcher, signal.SIGKILL)
    if victim != "launcher":
        host.kill_worker()
        host.start()


def _keepers(host: Any, jobs: list[dayfly.Job]) -> dict[str, int]:
    """The keepers of jobs that run now, by job id."""
    found = {job.id: host.keeper_of(job.id) for job in jobs}
    return {job_id: pid for job_id, pid in found.items() if pid is not None}


def _pause(seconds: float) -> None:
    select.select([], [], [], seconds)


def _check(job: dayfly.Job, marks: Path, out: Path) -> None:
    """Once, whole, and with its artifact byte for byte."""
    result = job.result()
    assert result.outcome is Outcome.SUCCEEDED, result.describe()
    assert (marks / job.id).read_text() == "start 1\n"
    assert [attempt.number for attempt in result.attempts] == [1]
    for stream, word in ((1, "line"), (2, "err")):
        logged = b"".join(line.data for line in job.logs() if line.stream == stream)
        assert logged.decode() == "".join(f"{word} {number}\n" for number in range(1, _LINES + 1))
    (artifact,) = job.download(out / job.id)
    assert artifact.read_bytes() == _RESULT


def test_twenty_kills_at_random_moments_lose_no_job_and_run_none_twice(host: Any, marks: Path, tmp_path: Path) -> None:
    """Agent, launcher or both die by SIGKILL: each job has one start, one keeper, its whole log and its artifact."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    victims = [("agent", "launcher", "both")[number % 3] for number in range(_KILLS)]
    chance.shuffle(victims)
    host.start()
    jobs = _submit(host, marks, 30)
    seen: dict[str, set[int]] = {}
    adopted = 0
    for victim in victims:
        _pause(chance.uniform(0.0, 1.5))
        before = _keepers(host, jobs)
        _kill(host, victim)
        after = _keepers(host, jobs)
        adopted += len(before.items() & after.items())
        for job_id, pid in [*before.items(), *after.items()]:
            seen.setdefault(job_id, set()).add(pid)
    for job in jobs:
        _check(job, marks, tmp_path / "out")
    assert adopted, "no kill met a running job"
    assert {len(pids) for pids in seen.values()} == {1}
    print(f"{adopted} times a job had the same keeper before and after a kill")


@pytest.mark.parametrize("victim", ["agent", "launcher", "both"])
def test_the_next_agent_goes_on_with_the_same_keeper(host: Any, marks: Path, tmp_path: Path, victim: str) -> None:
    """The keeper that ran a job before the kill runs it after, and it is the one that ends it."""
    host.start()
    (job,) = _submit(host, marks, 1)
    host.await_state(job, "running")
    host.until(lambda: (marks / job.id).exists())
    keeper = host.keeper_of(job.id)
    pidfd = os.pidfd_open(keeper)
    _kill(host, victim)
    assert host.keeper_of(job.id) == keeper
    _check(job, marks, tmp_path / "out")
    assert select.select([pidfd], [], [], 10.0)[0]
    os.close(pidfd)
