"""A worker from claim to clean-up, with real containers on a real Valkey."""

import contextlib
import os
import select
import signal
import subprocess
import time

import pytest

from dayfly.jobs.door import read_job
from dayfly.jobs.result import CLIENT_LOST, Policy
from dayfly.jobs.spec import ArtifactsWhen, JobSpec, Retry
from dayfly.jobs.state import Outcome
from dayfly.queue import keys
from dayfly.queue.connection import connect
from dayfly.worker import jobfiles
from dayfly.worker.delivery import deliver
from dayfly.worker.settings import JobDefaults

pytestmark = pytest.mark.kernel


@pytest.mark.each_runtime
@pytest.mark.parametrize(
    ("document", "outcome", "exit_code"),
    [
        ({"script": "true"}, Outcome.SUCCEEDED, 0),
        ({"script": "exit 3"}, Outcome.FAILED, 3),
        ({"script": "kill -9 $$"}, Outcome.SIGNALED, None),
        ({"command": ["no-such-command"]}, Outcome.FAILED, 127),
        ({"command": ["/etc/passwd"]}, Outcome.FAILED, 126),
        ({"script": "sleep 60", "timeout": 1}, Outcome.TIMED_OUT, None),
        ({"script": "trap '' TERM; sleep 60", "timeout": 1, "stop_grace": 1}, Outcome.TIMED_OUT, None),
        pytest.param(
            {"script": "head -c 40M /dev/zero > x", "limits": {"disk": "8M"}},
            *(Outcome.DISK_FULL, 1),
            marks=pytest.mark.host_root("a disk is a directory there, without a limit"),
        ),
        pytest.param(
            {"command": ["tail", "/dev/zero"], "limits": {"memory": "40M"}},
            *(Outcome.OUT_OF_MEMORY, None),
            marks=pytest.mark.limits,
        ),
        ({"image": "no-such-image", "command": ["x"]}, Outcome.REJECTED, None),
        ({"script": "true", "limits": {"io": [{"device": "/dev/null", "read_bps": 1}]}}, Outcome.REJECTED, None),
    ],
)
def test_each_end_of_a_job_has_its_outcome(worker, queue, document, outcome, exit_code):
    """Whatever becomes of a job, its result says what it was, and nothing of it stays on the host."""
    worker.start()
    result = queue.result(queue.submit(**document))
    assert result.outcome is outcome
    assert result.exit_code == exit_code


def test_a_job_that_cannot_be_read_is_rejected(worker, queue, valkey):
    """It is never run as an empty job; the result has the reason."""
    job_id = queue.submit(command=["true"])
    with contextlib.closing(connect(valkey)) as redis:
        redis.hset(keys.job(job_id), "data", b"garbage")
    worker.start()
    result = queue.result(job_id)
    assert (result.outcome, result.message) == (Outcome.REJECTED, "it cannot be read: its payload is not JSON")


def test_a_job_that_names_nothing_to_run_is_rejected(worker, queue):
    """Without image and program it would be a shell of the host's that reads nothing and succeeds."""
    worker.start()
    result = queue.result(queue.producer.submit(JobSpec(name="foo")))
    assert result.outcome is Outcome.REJECTED
    assert "command: is missing: the image host has no command of its own" in result.message


@pytest.mark.host_root("a disk is a directory there, which is not kept and has no io of its own")
def test_a_limit_of_io_holds_the_jobs_writes_to_its_own_disk(worker, queue):
    """A write that the limit makes last for hours does not end, and the job that waits for it can be stopped."""
    worker.start()
    script = "dd if=/dev/zero of=made bs=64K count=4 oflag=direct"
    slow = queue.submit(script=script, limits={"io": {"write_bps": 1}}, timeout=1, stop_grace=1)
    quick = queue.submit(script=script, limits={"io": {"write_bps": "1G", "write_iops": 100000}})
    assert queue.result(quick).outcome is Outcome.SUCCEEDED
    assert queue.result(slow).outcome is Outcome.TIMED_OUT


@pytest.mark.limits
def test_a_result_tells_the_whole_story(worker, queue, tmp_path):
    """Log in order, artifacts byte for byte, usage, limits, timings and attempts are all there."""
    worker.start()
    script = "echo out; echo err >&2; mkdir dist; printf '\\0\\1binary' > dist/a; head -c 4M /dev/urandom | cksum"
    job_id = queue.submit(script=script, artifacts=["dist", "nothing-like-this"], name="whole")
    result = queue.result(job_id)
    assert (result.name, result.host, result.worker, result.image.ref) == ("whole", result.host, "w", "host")
    assert result.limits.memory_bytes == 256 << 20
    assert result.policy == Policy(2, ("lost",), (), "always")
    assert result.usage.cpu_user_seconds + result.usage.cpu_system_seconds > 0
    times = result.timings
    moments = [times.queued_at, times.claimed_at, times.started_at, times.finished_at, times.collected_at]
    assert moments == sorted(moments)
    assert [attempt.number for attempt in result.attempts] == [1]
    assert "artifact pattern 'nothing-like-this' matches no file" in result.warnings
    written = deliver(worker.store, result.artifacts, tmp_path / "out")
    assert [path.read_bytes() for path in written] == [b"\0\1binary"]
    whole = b"".join(frame.payload for frame in worker.store.read_log(job_id) if frame.stream == 1)
    assert whole.startswith(b"out\n")
    assert whole == queue.log(job_id)
    assert result.log.stdout_bytes == len(whole)
    queue.await_discarded(job_id)


def test_what_a_job_does_not_state_is_the_operators(worker, queue):
    """[defaults] decide when artifacts are collected and what is tried again; the result says what held."""
    worker.fields["defaults"] = JobDefaults(retry=Retry(1, (Outcome.FAILED,)), artifacts_when=ArtifactsWhen.ON_FAILURE)
    worker.start()
    good, bad = (queue.result(queue.submit(script=f"echo > a; exit {code}", artifacts="a")) for code in (0, 3))
    assert ([each.path for each in good.artifacts], [each.path for each in bad.artifacts]) == ([], ["a"])
    assert (len(good.attempts), len(bad.attempts)) == (1, 2)
    assert bad.policy == Policy(1, ("failed",), (), "on_failure")


def test_a_job_whose_client_has_gone_is_cancelled_and_says_why(worker, queue):
    """A job of `dayfly run` ends with its client's lease, and its record names the reason."""
    worker.fields["lease_seconds"] = 2.0
    worker.start()
    spec = read_job({"image": "host", "script": "sleep 60"})
    job_id = queue.producer.submit(spec, client_lease=True)
    queue.await_state(job_id, "running")
    connect(worker.url).zadd(keys.CLIENTS, {job_id: 1})  # as if thirty seconds had passed
    result = queue.result(job_id)
    assert (result.outcome, result.reason) == (Outcome.CANCELLED, CLIENT_LOST)


def test_output_is_seen_while_the_job_runs(worker, queue):
    """A follower gets the first line of a job that waits for being cancelled."""
    worker.start()
    job_id = queue.submit(script="echo first; sleep 60")
    follower = (line for line in queue.stream.follow(job_id) if line.stream == 1)
    assert next(follower).data == b"first\n"
    queue.await_state(job_id, "running")
    queue.producer.cancel(job_id)
    assert queue.result(job_id).outcome is Outcome.CANCELLED


def test_a_log_over_the_cap_keeps_head_and_tail_in_the_store(worker, queue):
    """A flood of output costs no more than the cap, and the result says how much was dropped."""
    worker.fields["log_limit_bytes"] = 1 << 20
    worker.start()
    job_id = queue.submit(script="seq -w 1 500000")
    result = queue.result(job_id)
    kept = b"".join(frame.payload for frame in worker.store.read_log(job_id) if frame.stream == 1)
    assert kept.startswith(b"000001\n")
    assert kept.endswith(b"500000\n")
    assert result.log.stdout_bytes == 500_000 * 7
    assert len(kept) + result.log.dropped_bytes == result.log.stdout_bytes
    assert len(kept) < 1 << 20


@pytest.mark.parametrize("is_urgent", [False, True])
def test_a_cancelled_job_ends_as_cancelled_whatever_it_does(worker, queue, is_urgent):
    """A job that ignores the stop signal is killed after its grace, at once when that is asked for."""
    worker.start()
    job_id = queue.submit(script="trap 'echo heard' TERM; echo ready; while :; do sleep 0.1; done", stop_grace=2)
    follower = (line for line in queue.stream.follow(job_id) if line.stream == 1)
    next(follower)
    queue.producer.cancel(job_id, now=is_urgent)
    assert queue.result(job_id).outcome is Outcome.CANCELLED
    assert [line.data for line in follower] == ([] if is_urgent else [b"heard\n"])


def test_a_cancel_ends_the_collecting_of_artifacts(worker, queue):
    """A job that is cancelled while an hour's worth of artifacts is collected ends at once, with those taken so far."""
    worker.start()
    job_id = queue.submit(script="echo small > a; truncate -s 60G made", artifacts=["*"])
    queue.await_state(job_id, "collecting")
    queue.producer.cancel(job_id)
    result = queue.result(job_id)
    assert (result.outcome, result.exit_code) == (Outcome.CANCELLED, 0)
    taken = [each.path for each in result.artifacts]
    assert taken in ([], ["a"])  # none, where the cancel was the faster
    assert f"artifacts: stopped after {len(taken)} files: the job was cancelled" in result.warnings


def test_a_keeper_that_collects_does_not_outlive_its_lease(worker, queue):
    """A keeper whose agent is dead gives up its artifacts with its lease, for the job may run elsewhere by now."""
    worker.fields["lease_seconds"] = 2.0
    worker.start()
    job_id = queue.submit(script="truncate -s 60G made", artifacts=["*"])
    queue.await_state(job_id, "collecting")
    keeper = os.pidfd_open(worker.keeper_of(job_id))
    worker.kill()
    assert select.select([keeper], [], [], 20.0)[0]
    os.close(keeper)
    ending = jobfiles.read_exit(str(worker.home / "jobs" / job_id))
    assert (ending.cause, ending.artifacts) == ("lease_lost", ())
    queue.producer.cancel(job_id)


def test_jobs_cancelled_at_any_moment_end_once_as_cancelled_or_as_they_were(worker, queue):
    """A cancel right behind the submission meets every phase; none is lost and none hangs."""
    worker.start()
    worker.await_start()
    for pause in range(20):
        job_id = queue.submit(script="sleep 60")
        deadline = time.monotonic() + pause * 0.001
        while time.monotonic() < deadline:
            pass
        queue.producer.cancel(job_id)
        assert queue.result(job_id).outcome is Outcome.CANCELLED


def test_a_job_is_tried_again_as_its_policy_says(worker, queue):
    """A failure with a listed exit code is repeated, its attempts and their logs are told, and the last end counts."""
    worker.start()
    script = 'echo "$DAYFLY_ATTEMPT"; test "$DAYFLY_ATTEMPT" = 3 || exit 75'
    job_id = queue.submit(script=script, retry={"max": 4, "exit_codes": [75]})
    result = queue.result(job_id)
    assert result.outcome is Outcome.SUCCEEDED
    assert [(each.number, each.exit_code) for each in result.attempts] == [(1, 75), (2, 75), (3, 0)]
    whole = b"".join(frame.payload for frame in worker.store.read_log(job_id) if frame.stream == 1)
    assert whole == queue.log(job_id) == b"1\n2\n3\n"


@pytest.mark.host_root("a disk is a directory there, which is not kept and has no io of its own")
@pytest.mark.parametrize(("keep", "exit_code"), [("always", 0), ("failed", 3)])
def test_what_a_job_wants_kept_stays_with_its_disk(worker, queue, tmp_path, keep, exit_code):
    """The result names the directory: record, log and end are in it, and the disk can be mounted."""
    worker.start()
    job_id = queue.submit(script=f"echo written > made; echo said; exit {exit_code}", keep=keep)
    result = queue.result(job_id)
    queue.await_discarded(job_id)
    assert result.kept == f"{worker.home}/kept/{job_id}.1"
    assert {"record.json", "exit.json", "log", "disk.ext4"} <= set(os.listdir(result.kept))
    assert _cat(f"{result.kept}/disk.ext4", "workspace/upper/made") == "written\n"


@pytest.mark.host_root("a disk is a directory there, which is not kept and has no io of its own")
def test_each_attempt_that_failed_is_kept_apart(worker, queue):
    """A job that is tried again leaves the directory of every attempt that `keep` wants, and not the last one's."""
    worker.start()
    script = 'echo "$DAYFLY_ATTEMPT" > made; test "$DAYFLY_ATTEMPT" = 3 || exit 75'
    job_id = queue.submit(script=script, retry={"max": 4, "exit_codes": [75]}, keep="failed")
    assert (queue.result(job_id).outcome, queue.result(job_id).kept) == (Outcome.SUCCEEDED, None)
    queue.await_discarded(job_id)
    kept = sorted(os.listdir(worker.home / "kept"))
    assert kept == [f"{job_id}.1", f"{job_id}.2"]
    assert [_cat(worker.home / f"kept/{name}/disk.ext4", "workspace/upper/made") for name in kept] == ["1\n", "2\n"]


def _cat(image, path):
    """A file of a disk image that nobody has mounted."""
    return subprocess.run(["debugfs", "-R", f"cat {path}", image], capture_output=True, text=True).stdout


@pytest.mark.each_runtime
def test_a_keeper_that_is_killed_loses_the_job_and_its_policy_decides(worker, queue):
    """The death of a keeper takes the container with it; the job is started again as a further attempt."""
    worker.start()
    job_id = queue.submit(script='test "$DAYFLY_ATTEMPT" = 2 || sleep 60')
    queue.await_state(job_id, "running")
    keeper = worker.keeper_of(job_id)
    os.kill(keeper, signal.SIGKILL)
    result = queue.result(job_id)
    assert result.outcome is Outcome.SUCCEEDED
    assert [each.outcome for each in result.attempts] == [Outcome.LOST, Outcome.SUCCEEDED]


def test_a_worker_told_to_stop_finishes_what_runs_and_takes_nothing_new(worker, queue):
    """The first SIGTERM drains: running jobs succeed, waiting ones wait on, the exit code is 0."""
    worker.start()
    running = [queue.submit(script="sleep 1; echo done") for _ in range(2)]
    for job_id in running:
        queue.await_state(job_id, "running")
    waiting = queue.submit(script="true")
    worker.tell(signal.SIGTERM)
    assert worker.wait() == 0
    assert [queue.result(job_id).outcome for job_id in running] == [Outcome.SUCCEEDED] * 2
    assert queue.records.get(waiting).state == "queued"


def test_a_worker_told_twice_puts_back_what_runs(worker, queue):
    """The second SIGTERM ends the jobs and queues them again; the attempt is not counted."""
    worker.start()
    job_id = queue.submit(script="echo attempt $DAYFLY_ATTEMPT; sleep 60 & wait", stop_grace=1)
    queue.await_state(job_id, "running")
    worker.tell(signal.SIGTERM)
    worker.await_event("told to stop")
    worker.tell(signal.SIGTERM)
    assert worker.wait() == 0
    record = queue.records.get(job_id)
    assert record.state == "queued"
    assert record.outcome is None


def test_a_worker_without_work_ends_by_itself_when_it_is_to(worker, queue):
    """After its idle time the agent returns and says so; a job before that resets the time."""
    worker.fields["idle_exit_seconds"] = 0.5
    worker.start()
    queue.result(queue.submit(script="true"))
    assert worker.wait() == 7


def test_two_agents_never_share_a_home(worker, queue):
    """The second one leaves with an error that names the first one's home."""
    worker.start()
    worker.await_start()
    first = worker.process
    worker.start()
    assert worker.wait() == 1
    assert "another worker does already" in worker.log_path.read_text()
    worker.process = first


@pytest.mark.limits
def test_a_host_is_never_overcommitted_and_a_large_job_gets_its_turn(worker, queue, tmp_path):
    """Of jobs of 3, 1 and 2 cpus on 4 never more than 4 run at once, and the large one is not passed by for ever."""
    worker.fields.update(cpus=4.0, slots=4, memory_bytes=1 << 30)
    (tmp_path / "marks").mkdir()
    mount = {"source": str(tmp_path / "marks"), "target": "/marks", "writable": True}
    script = 'echo "$SIZE" >> /marks/m; sleep 0.2; echo "-$SIZE" >> /marks/m'
    sizes = [1, 2, 3, 1, 2, 1, 3, 2, 1, 1, 2, 3]
    ids = [
        queue.submit(script=script, env={"SIZE": str(size)}, limits={"cpus": size}, mounts=[mount]) for size in sizes
    ]
    worker.start()
    assert {queue.result(job_id).outcome for job_id in ids} == {Outcome.SUCCEEDED}
    steps = [int(line) for line in (tmp_path / "marks/m").read_text().split()]
    assert max(sum(steps[:count]) for count in range(len(steps))) <= 4
    assert sorted(step for step in steps if step > 0) == sorted(sizes)


def test_a_label_keeps_a_job_for_the_worker_that_has_it(worker, queue):
    """A job that asks for a label waits for a worker with it."""
    worker.start()
    picky = queue.submit(script="true", labels={"disk": "nvme"})
    queue.result(queue.submit(script="true"))
    assert queue.records.get(picky).state == "queued"
    worker.stop()
    worker.fields["labels"] = {"disk": "nvme"}
    worker.start()
    assert queue.result(picky).outcome is Outcome.SUCCEEDED
