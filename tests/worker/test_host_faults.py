"""What a host in trouble does to a job: its result says what failed, on what and why, and the log so far is there."""

import contextlib
import shutil

import pytest

from dayfly.jobs.state import Outcome
from dayfly.worker.host import host_id

pytestmark = pytest.mark.kernel


def _whole_log(worker, job_id):
    return b"".join(frame.payload for frame in worker.store.read_log(job_id) if frame.stream == 1)


@pytest.mark.host_root("the job's own disk would be the one that is full there")
@pytest.mark.usefixtures("small_home")
def test_a_log_that_fills_the_workers_disk_is_a_fault_that_says_so(worker, queue, tmp_path):
    """The result of the job is ours, names the file and the remedy, and the log up to there is kept."""
    worker.fields["store_directory"] = tmp_path / "store"
    worker.start()
    job_id = queue.submit(script="echo first; head -c 100M /dev/zero | tr '\\0' 'x'", retry=0, limits={"disk": "8M"})
    result = queue.result(job_id)
    assert result.outcome is Outcome.LOST
    assert "cannot write the job's log" in result.message
    assert f"{worker.home}/jobs/{job_id}/log" in result.message
    assert "No space left on device; the disk that holds DAYFLY_HOME is full" in result.message
    assert _whole_log(worker, job_id).startswith(b"first\nxxxx")
    assert queue.result(queue.submit(script="true", limits={"disk": "8M"})).outcome is Outcome.SUCCEEDED


@pytest.mark.host_root("the job's own disk would be the one that is full there")
@pytest.mark.usefixtures("small_home")
def test_an_end_that_does_not_fit_the_workers_disk_is_told_short(worker, queue, tmp_path):
    """What a full disk has no room for is left out and named; how the job ended stays as it was."""
    worker.fields["store_directory"] = tmp_path / "store"
    marks = tmp_path / "marks"
    marks.mkdir()
    marks.chmod(0o777)  # a rootless worker's jobs have other ids than its user
    worker.start()
    script = "seq -f f%g 2000 | xargs touch; echo ready; until test -e /marks/go; do sleep 0.02; done; exit 3"
    mount = {"source": str(marks), "target": "/marks", "writable": True}
    job_id = queue.submit(script=script, mounts=[mount], artifacts=["f*"], limits={"disk": "20M"}, retry=0)
    _await_line(queue, job_id)
    _fill(worker.home / "filler")
    (marks / "go").touch()
    result = queue.result(job_id)
    assert (result.outcome, result.exit_code, result.artifacts) == (Outcome.FAILED, 3, ())
    assert any("exit.json: No space left on device" in each and "2000 artifacts" in each for each in result.warnings)
    (worker.home / "filler").unlink()


@pytest.mark.host_root("a disk is a directory there, and its user hears of a full one")
@pytest.mark.usefixtures("small_home")
def test_a_job_whose_writes_the_host_could_not_hold_is_lost_and_not_blamed(worker, queue):
    """The host's disk is full, the job's quota is not: that is ours, whatever exit code the job makes of it."""
    worker.start()
    script = "head -c 60M /dev/zero | tr '\\0' x > made; sync"
    # As a command: a script's lines would go into the log, which finds the disk as full.
    large = queue.submit(command=["sh", "-c", script], limits={"disk": "100M"}, retry=0)
    result = queue.result(large)
    assert result.outcome is Outcome.LOST
    assert f"cannot hold what the job wrote, in {worker.home}: No space left on device" in result.message
    assert not result.disk.reached
    queue.await_discarded(large)
    small = queue.result(queue.submit(command=["sh", "-c", "echo small > made; exit 3"], limits={"disk": "100M"}))
    assert (small.outcome, small.exit_code) == (Outcome.FAILED, 3)


def test_what_only_one_job_asks_for_stops_no_other(worker, queue, tmp_path):
    """A target below a file, or a .dayflyignore that is too much: the job is rejected, and the next begins at once."""
    worker.start()
    (tmp_path / "source").mkdir()
    (tmp_path / "source/.dayflyignore").write_text("a\n" * 10_001)
    facts = (tmp_path / "source").stat()
    given = {"path": str(tmp_path / "source"), "host": host_id(), "device": facts.st_dev, "inode": facts.st_ino}
    (tmp_path / "mounted").mkdir()
    for fields, why in (
        ({"mounts": [f"{tmp_path}/mounted:/etc/passwd/below"]}, "Not a directory"),
        ({"dir": given}, "its .dayflyignore has more than 10000 lines"),
    ):
        result = queue.result(queue.submit(script="true", **fields))
        assert result.outcome is Outcome.REJECTED
        assert why in result.message
    assert queue.result(queue.submit(script="true")).outcome is Outcome.SUCCEEDED
    assert worker.count_events("host in trouble") == 0


def _await_line(queue, job_id):
    """Until the job has written something."""
    next(line for line in queue.stream.follow(job_id) if line.stream == 1)


def _fill(path):
    """Write until the disk is full."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_jobs_whose_container_cannot_be_made_take_no_worker_along(worker, queue):
    """There are more of them than keepers stand ready; the job behind them still finds one."""
    worker.start()
    image = "/proc/sys"  # no directory that overlayfs takes
    bad = [queue.submit(image=image, command=["/x"], retry=0) for _ in range(worker.fields["slots"] + 2)]
    results = [queue.result(job_id) for job_id in bad]
    assert all("cannot " in each.message for each in results), [each.message for each in results]
    assert queue.result(queue.submit(script="true")).outcome is Outcome.SUCCEEDED
    assert worker.count_events("no keeper") == 0


def test_a_directory_that_is_removed_under_a_job_loses_it_and_says_so(worker, queue):
    """The job is lost with a message about its directory, and the worker goes on."""
    worker.start()
    job_id = queue.submit(script="sleep 0.3; echo late", retry=0)
    queue.await_state(job_id, "running")
    shutil.rmtree(worker.home / "jobs" / job_id)
    result = queue.result(job_id)
    assert result.outcome is Outcome.LOST
    assert "its directory on the worker was removed" in result.message
    assert queue.result(queue.submit(script="true")).outcome is Outcome.SUCCEEDED
    assert f"jobs/{job_id}" in worker.log_path.read_text()
