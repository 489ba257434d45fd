"""What `run`, `wait` and `attach` do beside a queue that nobody serves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from dayfly import Client, as_completed
from dayfly.jobs.result import QUEUE_TIMEOUT

DEADLINE_SECONDS = 30.0


def start(*arguments: str, url: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "dayfly", *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        env={**os.environ, "DAYFLY_URL": url},
        text=True,
    )


def dayfly(*arguments: str, url: str) -> subprocess.CompletedProcess[str]:
    process = start(*arguments, url=url)
    out, err = process.communicate(timeout=DEADLINE_SECONDS)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def jobs_file(tmp_path: Path, *documents: dict[str, object]) -> str:
    path = tmp_path / "jobs.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in documents))
    return str(path)


def until(is_true: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "it did not become true in time"


def test_run_gives_up_after_the_queue_timeout(valkey: str) -> None:
    """Where no worker is there to look at the time, the waiting client does: 124."""
    done = dayfly("run", "--queue-timeout", "1s", "--", "true", url=valkey)
    assert done.returncode == 124, done.stderr
    assert "no worker took the job within its queue_timeout" in done.stderr


@pytest.mark.parametrize("command", ["wait", "attach"])
def test_those_who_wait_for_a_job_end_it_after_its_queue_timeout(valkey: str, command: str) -> None:
    """`wait` and `attach` look at the time as `run` does."""
    job_id = dayfly("submit", "--queue-timeout", "1s", "--", "true", url=valkey).stdout.strip()
    done = dayfly(command, job_id, url=valkey)
    assert done.returncode == 124, done.stderr


def test_a_program_that_waits_ends_a_job_after_its_queue_timeout(valkey: str) -> None:
    """The API's wait() and as_completed() look at the time as the commands do."""
    with Client(valkey) as client:
        waited, completed = (client.submit(image="host", command="true", queue_timeout=1) for _ in range(2))
        assert waited.wait(DEADLINE_SECONDS).reason == QUEUE_TIMEOUT
        assert [job.result().reason for job in as_completed([completed], DEADLINE_SECONDS)] == [QUEUE_TIMEOUT]


@pytest.mark.parametrize("command", [["submit"], ["run", "--detach"], ["doctor"], ["schema"], ["config", "show"]])
def test_a_stdout_that_takes_nothing_is_named(valkey: str, command: list[str]) -> None:
    """What could not be written, and why: no fault of Dayfly's own, no job's exit code."""
    with open("/dev/full", "w") as full:
        job = ["-q", "--", "true"] if command[0] in ("submit", "run") else []
        running = start(*command, *job, url=valkey, stdout=full)
        _, err = running.communicate(timeout=DEADLINE_SECONDS)
    assert (running.returncode, err) == (
        125,
        "dayfly: cannot write to stdout: No space left on device; is its disk full?\n",
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--result", "/nowhere/r.json"], "--result /nowhere/r.json: no file that you may write"),
        (["--result", "/"], "--result /: no file that you may write"),
        (["--detach", "--result", "r.json"], "give --detach or --result, not both"),
        (["--detach", "--json"], "give --detach or --json, not both"),
    ],
)
def test_what_cannot_be_handed_over_is_refused_before_the_job(valkey: str, arguments: list[str], reason: str) -> None:
    """Nothing is submitted whose result could not go where it shall."""
    done = dayfly("run", *arguments, "--", "true", url=valkey)
    assert (done.returncode, reason in done.stderr) == (125, True), done.stderr
    assert dayfly("ls", "--json", url=valkey).stdout == ""


def test_jobs_before_one_that_is_refused_are_cancelled(valkey: str, tmp_path: Path) -> None:
    """`run -f` submits all or leaves none behind, and names those it has cancelled."""
    file = jobs_file(tmp_path, {"command": "a"}, {"command": "b", "after": ["7ZZZ"]}, {"command": "c"})
    done = dayfly("run", "-f", file, url=valkey)
    assert done.returncode == 125
    [left] = [json.loads(line) for line in dayfly("ls", "--json", url=valkey).stdout.splitlines()]
    assert (left["outcome"], left["id"] in done.stderr) == ("cancelled", True)
    assert "job 2 of 3: no job '7ZZZ'" in done.stderr


def test_several_jobs_are_followed_over_a_lost_connection(valkey: str, tmp_path: Path) -> None:
    """`run -f` with several jobs goes on waiting when Redis was away, as with one."""
    running = start("run", "-f", jobs_file(tmp_path, {"command": "a"}, {"command": "b"}), url=valkey)
    with redis.Redis.from_url(valkey) as server:
        until(lambda: len(server.pubsub_channels("*")) == 2)
        ids = [channel.decode().rpartition(":")[2] for channel in server.pubsub_channels("*")]
        server.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        assert running.stderr is not None
        until(lambda: "waiting for it to come back" in running.stderr.readline())
        until(lambda: len(server.pubsub_channels("*")) == 2)
    assert dayfly("cancel", *ids, url=valkey).returncode == 0
    running.communicate(timeout=DEADLINE_SECONDS)
    assert running.returncode == 130
