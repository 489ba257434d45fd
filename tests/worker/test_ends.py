"""What a job's end is when two things come together."""

import pytest

from dayfly.jobs.state import Outcome

pytestmark = pytest.mark.kernel


def test_cancel_beats_a_timeout_whose_grace_is_not_over(worker, queue):
    """A job that is cancelled while it has its grace after the timeout ends as cancelled."""
    worker.start()
    script = "trap 'echo heard' TERM; while :; do sleep 0.1 || true; done"
    job_id = queue.submit(script=script, timeout=1, stop_grace=60)
    assert next(line.data for line in queue.stream.follow(job_id) if line.stream == 1) == b"heard\n"
    queue.producer.cancel(job_id, now=True)
    assert queue.result(job_id).outcome is Outcome.CANCELLED


_THIEF = """
import os, select, time
thief = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK)
other = os.open("/proc/self/fd/2", os.O_RDONLY | os.O_NONBLOCK)
while True:
    for _ in range(100):
        os.write(1, b"x")
        try:
            os.read(thief, 1)
        except BlockingIOError:
            pass
    os.write(2, b"x")
    time.sleep(0.01)
    if select.select([other], [], [], 0)[0]:  # nobody has read it: whoever follows us waits for what we stole
        time.sleep(600)
"""


def test_a_job_that_reads_its_own_output_still_meets_its_timeout(worker, queue):
    """A byte that it takes back between our look at the pipe and our read is not waited for."""
    worker.start()
    result = queue.result(queue.submit(command=["python3", "-c", _THIEF], timeout=3, stop_grace=1, retry=0))
    assert result.outcome is Outcome.TIMED_OUT
    assert result.timings.finished_at - result.timings.started_at < 20


@pytest.mark.parametrize(("when", "paths"), [("on_failure", ["made"]), ("on_success", [])])
def test_a_job_that_was_stopped_is_a_failure_though_it_left_with_0(worker, queue, when, paths):
    """A timeout decides which artifacts are kept, not the exit code that the command answers it with."""
    worker.start()
    script = "trap 'exit 0' TERM; echo x > made; sleep 60 & wait"
    result = queue.result(queue.submit(script=script, timeout=1, artifacts={"paths": ["made"], "when": when}))
    assert (result.outcome, result.exit_code) == (Outcome.TIMED_OUT, 0)
    assert [each.path for each in result.artifacts] == paths


@pytest.mark.host_root("a disk is a directory there, without a limit")
def test_a_disk_that_was_full_between_two_samples_is_seen(worker, queue):
    """A job that meets ENOSPC, tidies up within half a second and fails ends as disk_full."""
    worker.start()
    script = "head -c 52M /dev/zero > a; sleep 1.2; head -c 40M /dev/zero > b || sleep 0.5; rm a b; exit 1"
    assert queue.result(queue.submit(script=script, limits={"disk": "64M"})).outcome is Outcome.DISK_FULL


def test_a_fault_in_a_script_is_told_with_its_own_line(worker, queue):
    """The shell counts the lines of a script as its author does."""
    worker.start()
    job_id = queue.submit(script="true\nno-such-command\n")
    assert queue.result(job_id).exit_code == 127
    said = b"".join(line.data for line in queue.stream.follow(job_id) if line.stream == 2)
    assert said.startswith(b"$ true\n$ no-such-command\n/bin/sh: 2: no-such-command"), said


@pytest.mark.host_root("a disk is a directory there, without a limit")
def test_the_result_has_the_size_that_the_disk_really_had(worker, queue):
    """A disk is never smaller than ext4 can be, and the limits in the result say so."""
    worker.start()
    result = queue.result(queue.submit(script="true", limits={"disk": "1M"}))
    assert (result.limits.disk_bytes, result.disk.limit_bytes) == (8 << 20, 8 << 20)
