"""The Python API, from end to end."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dayfly
from dayfly.queue.logs import LogCursor

if TYPE_CHECKING:
    from tests.face.conftest import Command

pytestmark = pytest.mark.kernel


@pytest.fixture
def client(dayfly_cli: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[dayfly.Client]:
    monkeypatch.setenv("DAYFLY_HOME", str(dayfly_cli.home))
    with dayfly.Client() as client:
        yield client


@pytest.fixture(scope="module")
def dayfly_cli(request: pytest.FixtureRequest) -> Command:
    command: Command = request.getfixturevalue("dayfly")
    return command


def test_submitting_program_loads_no_worker(home: Path) -> None:
    """A producer never pays for runtime, worker, netlink or tables."""
    program = (
        "import sys, dayfly\nassert len([m for m in sys.modules if m.startswith('dayfly')]) == 1\ndayfly.submit\n"
        "print([m for m in sys.modules if m.startswith(('dayfly.runtime', 'dayfly.worker', 'pyroute2', 'rich'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    """What `__all__` names can be had, and nothing else."""
    for name in dayfly.__all__:
        assert getattr(dayfly, name) is not None
    with pytest.raises(AttributeError):
        _ = dayfly.nonsense  # type: ignore[attr-defined]


def test_plain_rq_worker_is_told_that_it_cannot_run_a_job() -> None:
    """The name that jobs carry in Redis leads to a function that refuses with the remedy."""
    from rq.utils import import_attribute

    with pytest.raises(dayfly.DayflyError, match="dayfly worker"):
        import_attribute("dayfly.execute")({"command": ["true"]})


def test_run_returns_the_result(client: dayfly.Client, tmp_path: Path) -> None:
    """`run` waits; the Result has the names of `status --json`."""
    (tmp_path / "in").write_text("x")
    result = client.run(command=["sh", "-c", "cat in; exit 3"], dir=tmp_path)
    assert (result.outcome, result.exit_code) == (dayfly.Outcome.FAILED, 3)
    assert [line.data for line in client.job(result.id).logs()] == [b"x"]
    with pytest.raises(dayfly.JobFailed) as caught:
        client.run({"command": ["false"]}, check=True)
    assert caught.value.result.exit_code == 1


def test_many_are_submitted_and_come_as_they_finish(client: dayfly.Client) -> None:
    """submit_many takes mappings and JobSpecs; as_completed yields each once."""
    specs: list[dayfly.JobSpec | dict[str, object]] = [{"command": ["sh", "-c", f"exit {i}"]} for i in range(6)]
    specs.append(dayfly.JobSpec(command=("sh", "-c", "exit 6")))
    jobs = client.submit_many(specs)
    ended = {job.id: job.result().exit_code for job in dayfly.as_completed(jobs, timeout=60)}
    assert [ended[job.id] for job in jobs] == list(range(7))


def test_wait_ends_in_time(client: dayfly.Client) -> None:
    """A wait that is too short raises TimeoutError and leaves the job alone; a cancel ends it."""
    job = client.submit(command=["sleep", "60"])
    with pytest.raises(TimeoutError):
        job.wait(timeout=0.2)
    with pytest.raises(TimeoutError):
        list(dayfly.as_completed([job], timeout=0.2))
    assert not job.status().is_finished
    job.cancel(now=True)
    assert job.wait(30).outcome is dayfly.Outcome.CANCELLED


def test_logs_follow_to_the_end(client: dayfly.Client) -> None:
    """follow=True yields lines as they come, and ends by itself."""
    job = client.submit(command=["sh", "-c", "echo a; sleep 0.5; echo b >&2"])
    lines = [(line.stream, line.data) for line in job.logs(follow=True)]
    assert lines == [(1, b"a\n"), (2, b"b\n")]


@pytest.mark.parametrize("follow", [True, False])
def test_nothing_of_a_log_comes_twice_with_its_cursor(client: dayfly.Client, follow: bool) -> None:
    """A cursor that was used while the job ran, or on the stored log, goes on behind what it has given."""
    job = client.submit(command=["sh", "-c", "echo a; echo b >&2; exec sleep 60"])
    live, stored = LogCursor(), LogCursor()
    had = [line.data for line in islice(job.logs(follow=True, cursor=live), 2)]
    job.cancel(now=True)
    job.result()
    assert [line.data for line in job.logs(follow, cursor=live) if line.stream != 3] == []
    had_stored = [line.data for line in islice(job.logs(follow, cursor=stored), 1)]
    had_stored += [line.data for line in job.logs(follow, cursor=stored)]
    assert sorted(had) == sorted(had_stored) == [b"a\n", b"b\n"]
    assert list(job.logs(follow, cursor=stored)) == []


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (dayfly.JobSpec(command=("a\0b",)), r"command\[0\]: must not contain a NUL byte"),
        (dayfly.JobSpec(command="ls '-l"), "command: cannot be split into words"),  # type: ignore[arg-type]
        (dayfly.JobSpec(command=("a",), queue="de@1:fault"), "queue: "),
        (dayfly.JobSpec(command=("a",), limits=None), "a value of a wrong type"),  # type: ignore[arg-type]
        (dayfly.JobSpec(image="host"), "command: is missing"),
    ],
)
def test_a_job_spec_is_checked_as_a_document_is(client: dayfly.Client, spec: dayfly.JobSpec, reason: str) -> None:
    """Nothing reaches the queue that the worker would refuse to read."""
    for submit in (client.submit, lambda spec: client.submit_many([{"command": ["true"]}, spec]), client.run):
        before = len(client.records.ls())
        with pytest.raises(dayfly.SpecError, match=reason):
            submit(spec)
        assert len(client.records.ls()) == before


def test_a_command_that_is_text_is_split_as_in_a_document(client: dayfly.Client) -> None:
    """Never into letters."""
    job = client.submit(dayfly.JobSpec(command="true -l"))  # type: ignore[arg-type]
    assert client.records.get(job.id).document["command"] == ["true", "-l"]
    job.cancel()


def test_artifacts_are_downloaded(client: dayfly.Client, tmp_path: Path) -> None:
    """download() writes below the directory and says what."""
    (tmp_path / "dir").mkdir()
    job = client.submit(command=["sh", "-c", "echo x > made"], artifacts={"paths": ["made"]}, dir=tmp_path / "dir")
    job.result().check()
    assert [entry.path for entry in job.artifacts()] == ["made"]
    assert job.download(tmp_path / "out") == [tmp_path / "out/made"]
    assert (tmp_path / "out/made").read_text() == "x\n"


def test_wrong_document_is_refused_with_its_path(client: dayfly.Client) -> None:
    """A SpecError names the field; a field of a later version is NotBuilt; an unknown job is JobNotFound."""
    with pytest.raises(dayfly.SpecError, match=r"limits\.pids"):
        client.submit(command=["true"], limits={"pids": 0})
    with pytest.raises(dayfly.NotBuilt):
        client.submit(command=["true"], tty=True)
    with pytest.raises(dayfly.JobNotFound):
        client.job("ZZZZ")


def test_interrupted_run_cancels_its_job(client: dayfly.Client, dayfly_cli: Command) -> None:
    """Ctrl-C in the middle of `dayfly.run` cancels the job before the exception goes on."""
    program = "import dayfly\ndayfly.run(command=['sleep', '60'], name='interrupted')"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, env=dayfly_cli.environment, stderr=subprocess.PIPE) as running:
        # Not before it runs: until submit has returned its id nobody can cancel it, and its lease ends it instead.
        job = _await_running(client, "interrupted")
        running.send_signal(signal.SIGINT)
        assert job.wait(30).outcome is dayfly.Outcome.CANCELLED
        assert b"KeyboardInterrupt" in running.communicate(timeout=20)[1]


def _await_running(client: dayfly.Client, name: str) -> dayfly.Job:
    """The job that another process is about to submit, once it runs."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for record in client.records.ls(name=name):
            if record.state is dayfly.State.RUNNING:
                return client.job(record.id)
    raise AssertionError(f"no job {name} runs")


def test_unreachable_redis_is_named() -> None:
    """No Redis at the address: what was tried, where, and the remedy."""
    with pytest.raises(dayfly.QueueUnreachable, match=r"unix:///nowhere/s"):
        dayfly.Client("unix:///nowhere/s").submit(command=["true"])
    with pytest.raises(dayfly.ConfigError, match="not built yet"):
        dayfly.Client("https://dayfly.example")
