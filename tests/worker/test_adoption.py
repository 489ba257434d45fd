"""Agent and launcher are killed while jobs run: each job ends once, with its whole log and its artifacts."""

import os
import random
import select
import signal
import time

import pytest

from dayfly.jobs.state import Outcome
from dayfly.worker import joblock
from dayfly.worker.delivery import deliver

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_LINES = 40
_SCRIPT = f"""\
echo start $DAYFLY_ATTEMPT >> /marks/$DAYFLY_JOB_ID
for n in $(seq {_LINES}); do echo line $n; sleep 0.02; done
while [ -e /marks/hold ]; do sleep 0.02; done
echo $DAYFLY_JOB_ID > result
"""


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def _kill_launcher(worker):
    for pid in _children(worker.process.pid):
        os.kill(pid, signal.SIGKILL)


def _pause(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pass


def _check(worker, queue, job_id, marks, out):
    """The invariants of every job: once, whole, and its artifact intact."""
    result = queue.result(job_id)
    assert result.outcome is Outcome.SUCCEEDED, result
    assert (marks / job_id).read_text() == "start 1\n"
    assert [attempt.number for attempt in result.attempts] == [1]
    expected = b"".join(b"line %d\n" % number for number in range(1, _LINES + 1))
    assert queue.log(job_id) == expected
    stored = b"".join(frame.payload for frame in worker.store.read_log(job_id) if frame.stream == 1)
    assert stored == expected
    (artifact,) = deliver(worker.store, result.artifacts, out)
    assert artifact.read_text() == f"{job_id}\n"


@pytest.fixture
def marks(tmp_path):
    path = tmp_path / "marks"
    path.mkdir()
    path.chmod(0o777)  # a rootless worker's jobs have other ids than its user
    return path


def _give_time(worker):
    """An emulated machine takes half a minute to start an agent, and a keeper lives no longer than its lease."""
    worker.fields["lease_seconds"] = 300.0


def _submit(queue, marks, count):
    mount = {"source": str(marks), "target": "/marks", "writable": True}
    return [queue.submit(script=_SCRIPT, mounts=[mount], artifacts=["result"]) for _ in range(count)]


@pytest.mark.parametrize("victim", ["agent", "launcher", "both"])
def test_sigkill_at_random_moments_loses_no_job_and_runs_none_twice(worker, queue, marks, tmp_path, victim):
    """Seven kills for each kind of victim, under load: every job has one start, one end, all lines, its artifact."""
    chance = random.Random(os.environ.get("PYTEST_XDIST_WORKER", "") + victim + str(time.time_ns()))
    worker.start()
    if victim == "launcher":
        worker.await_start()  # its children before that are others, without which it does not start
    ids = _submit(queue, marks, 12)
    for _ in range(7):
        _pause(chance.uniform(0.0, 0.6))
        if victim in ("launcher", "both"):
            _kill_launcher(worker)
        if victim in ("agent", "both"):
            worker.kill()
            worker.start()
    for job_id in ids:
        _check(worker, queue, job_id, marks, tmp_path / "out")


def test_the_same_keeper_goes_on_under_the_next_agent(worker, queue, marks, tmp_path):
    """A job that runs as its agent is killed keeps its keeper: the next agent adopts it and does not start another."""
    (marks / "hold").touch()
    _give_time(worker)
    worker.start()
    job_id = _submit(queue, marks, 1)[0]
    queue.await_state(job_id, "running")
    keeper = worker.keeper_of(job_id)
    worker.kill()
    assert worker.keeper_of(job_id) == keeper
    worker.start()
    worker.await_event("job adopted")
    (adopted,) = [event for event in worker.events() if event["event"] == "job adopted"]
    assert (adopted["job"], adopted["keeper"], adopted["is_over"]) == (job_id, keeper, False)
    (marks / "hold").unlink()
    _check(worker, queue, job_id, marks, tmp_path / "out")


def test_a_job_that_ended_while_no_agent_was_there_is_reported_by_the_next(worker, queue, marks, tmp_path):
    """exit.json waits in the job's directory until somebody tells the queue."""
    (marks / "hold").touch()
    worker.start()
    job_id = _submit(queue, marks, 1)[0]
    queue.await_state(job_id, "running")
    _, pidfd = joblock.follow(str(worker.home / "jobs" / job_id))
    worker.kill()
    (marks / "hold").unlink()
    _await_end(pidfd)
    assert (worker.home / "jobs" / job_id / "exit.json").exists()
    worker.start()
    _check(worker, queue, job_id, marks, tmp_path / "out")


def test_an_upgrade_under_load_leaves_the_jobs_running(worker, queue, marks, tmp_path):
    """SIGQUIT makes the agent leave at once with exit code 0; the next one adopts all of its jobs."""
    (marks / "hold").touch()
    _give_time(worker)
    worker.start()
    ids = _submit(queue, marks, 2)
    for job_id in ids:
        queue.await_state(job_id, "running")
    keepers = {worker.keeper_of(job_id) for job_id in ids}
    worker.tell(signal.SIGQUIT)
    assert worker.wait() == 0
    worker.start()
    worker.await_event("job adopted", count=2)
    assert {event["keeper"] for event in worker.events() if event["event"] == "job adopted"} == keepers
    (marks / "hold").unlink()
    for job_id in ids:
        _check(worker, queue, job_id, marks, tmp_path / "out")


@pytest.mark.parametrize("damage", ["truncated", "missing", "another version"])
def test_a_damaged_record_never_stops_the_start_and_the_job_is_given_back(worker, queue, marks, tmp_path, damage):
    """A job whose record cannot be read is ended, and run again from the queue's own knowledge of it."""
    worker.start()
    job_id = queue.submit(script="sleep 60")
    queue.await_state(job_id, "running")
    keeper, pidfd = joblock.follow(str(worker.home / "jobs" / job_id))
    worker.kill()
    record = worker.home / "jobs" / job_id / "record.json"
    if damage == "truncated":
        os.truncate(record, 512)
    elif damage == "missing":
        record.unlink()
    else:
        record.write_bytes(record.read_bytes().replace(b'"version":1', b'"version":99'))
    worker.start()
    _await_end(pidfd)
    worker.await_event("job given back")
    queue.await_state(job_id, "running")
    assert worker.keeper_of(job_id) != keeper
    queue.producer.cancel(job_id, now=True)
    assert queue.result(job_id).outcome is Outcome.CANCELLED


def test_a_keeper_ends_its_job_when_its_lease_does(worker, queue):
    """With agent and lease gone nobody lets a job run beside its second attempt: the keeper kills it by itself."""
    worker.fields["lease_seconds"] = 3.0
    worker.start()
    job_id = queue.submit(script="sleep 60")
    queue.await_state(job_id, "running")
    _, pidfd = joblock.follow(str(worker.home / "jobs" / job_id))
    worker.kill()
    _await_end(pidfd)
    assert b'"cause":"lease_lost"' in (worker.home / "jobs" / job_id / "exit.json").read_bytes()
    queue.producer.cancel(job_id)
    worker.start()
    assert queue.result(job_id).outcome is Outcome.CANCELLED


def _await_end(pidfd):
    assert select.select([pidfd], [], [], 60.0)[0]
    os.close(pidfd)
