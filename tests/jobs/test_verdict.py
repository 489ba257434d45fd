"""Outcome, retry, and the words for people."""

import errno

import pytest

from dayfly.jobs.result import (
    Attempt,
    DiskFacts,
    OomFacts,
    OomVictim,
    PathSize,
    Pressure,
    Result,
    Sample,
    Timings,
    Usage,
)
from dayfly.jobs.spec import DEFAULT_RETRY, Retry
from dayfly.jobs.state import Cause, Outcome, State
from dayfly.jobs.verdict import Ending, decide, explain, should_retry, summary, warnings_of


@pytest.mark.parametrize(
    ("ending", "outcome"),
    [
        (Ending(Cause.EXITED, exit_code=0), Outcome.SUCCEEDED),
        (Ending(Cause.EXITED, exit_code=0, oom_events=3), Outcome.SUCCEEDED),
        (Ending(Cause.EXITED, exit_code=0, is_disk_reached=True), Outcome.SUCCEEDED),
        (Ending(Cause.EXITED, exit_code=1), Outcome.FAILED),
        (Ending(Cause.EXITED, exit_code=137), Outcome.FAILED),
        (Ending(Cause.EXITED, exit_code=124), Outcome.FAILED),
        (Ending(Cause.EXITED, signal=9), Outcome.SIGNALED),
        (Ending(Cause.EXITED, signal=9, oom_events=1), Outcome.OUT_OF_MEMORY),
        (Ending(Cause.EXITED, exit_code=1, oom_events=1), Outcome.OUT_OF_MEMORY),
        (Ending(Cause.EXITED, exit_code=1, is_disk_reached=True), Outcome.DISK_FULL),
        (Ending(Cause.EXITED, signal=6, is_disk_reached=True), Outcome.DISK_FULL),
        (Ending(Cause.EXITED, exit_code=1, oom_events=1, is_disk_reached=True), Outcome.OUT_OF_MEMORY),
        (Ending(Cause.TIMED_OUT, signal=9, oom_events=1, is_disk_reached=True), Outcome.TIMED_OUT),
        (Ending(Cause.TIMED_OUT, exit_code=0), Outcome.TIMED_OUT),
        (Ending(Cause.CANCELLED, exit_code=0), Outcome.CANCELLED),
        (Ending(Cause.CANCELLED, signal=9, oom_events=1), Outcome.CANCELLED),
        (Ending(Cause.LEASE_LOST, signal=9), Outcome.LOST),
        (Ending(Cause.FAULT), Outcome.REJECTED),
        (Ending(Cause.FAULT, fault_errno=errno.ENOENT), Outcome.REJECTED),
        (Ending(Cause.FAULT, fault_errno=errno.ENOSPC), Outcome.LOST),
        (Ending(Cause.FAULT, fault_errno=errno.EIO), Outcome.LOST),
        (Ending(Cause.REQUEUED, signal=9), None),
    ],
)
def test_the_end_of_the_main_process_decides(ending, outcome):
    """Cancel beats timeout beats memory beats disk; exit 0 is success."""
    assert decide(ending) is outcome


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_verdict(cause):
    """No end of a keeper is one that nobody thought of."""
    assert decide(Ending(cause, exit_code=1)) in (*Outcome, None)


def test_success_beside_an_oom_kill_or_a_full_disk_is_warned_of():
    """Success hides nothing."""
    warnings = warnings_of(Ending(Cause.EXITED, exit_code=0, oom_events=2, is_disk_reached=True))
    assert len(warnings) == 2
    assert "2 processes" in warnings[0]
    assert "disk quota" in warnings[1]
    assert warnings_of(Ending(Cause.EXITED, exit_code=0)) == ()
    assert warnings_of(Ending(Cause.EXITED, exit_code=1, oom_events=1)) == ()


@pytest.mark.parametrize(
    ("policy", "outcome", "exit_code", "attempt", "is_retried"),
    [
        (DEFAULT_RETRY, Outcome.LOST, None, 1, True),
        (DEFAULT_RETRY, Outcome.LOST, None, 2, True),
        (DEFAULT_RETRY, Outcome.LOST, None, 3, False),
        (DEFAULT_RETRY, Outcome.FAILED, 1, 1, False),
        (Retry(0), Outcome.LOST, None, 1, False),
        (Retry(1, (Outcome.FAILED,)), Outcome.FAILED, 1, 1, True),
        (Retry(1, (Outcome.FAILED,)), Outcome.LOST, None, 1, False),
        (Retry(2, (), (75,)), Outcome.FAILED, 75, 1, True),
        (Retry(2, (), (75,)), Outcome.FAILED, 74, 1, False),
        (Retry(2, (), (75,)), Outcome.OUT_OF_MEMORY, 75, 1, True),
        (Retry(2, (Outcome.CANCELLED,), (0, 130)), Outcome.CANCELLED, 130, 1, False),
        (Retry(2, (), (0,)), Outcome.SUCCEEDED, 0, 1, False),
        (Retry(2, (Outcome.REJECTED,)), Outcome.REJECTED, None, 1, False),
    ],
)
def test_an_attempt_follows_only_where_the_policy_says(policy, outcome, exit_code, attempt, is_retried):
    """`max` further attempts, by outcome or exit code, never after success, cancel or refusal."""
    assert should_retry(policy, outcome, exit_code, attempt) is is_retried


def _finished(**fields):
    return Result(id="01JX", state=State.FINISHED, **fields)


def test_an_oom_summary_names_victim_limit_and_peak():
    """What one must know to raise the limit or mend the program."""
    oom = OomFacts(2, (OomVictim("cc1plus", 900 << 20),), limit_bytes=1 << 30, peak_bytes=1 << 30)
    lines = summary(_finished(outcome=Outcome.OUT_OF_MEMORY, signal=9, oom=oom, name="build"))
    assert lines == [
        "job 01JX (build) ran out of memory",
        "memory: 2 out-of-memory events, limit 1G, peak 1G",
        "memory: killed cc1plus (900M resident)",
    ]


def test_a_disk_explanation_has_the_ten_biggest_paths_and_no_escape_sequences():
    """A job chooses its file names; a terminal must not obey them."""
    biggest = tuple(PathSize(f"/tmp/\x1b[2J{number}", (20 - number) << 20) for number in range(12))
    disk = DiskFacts(reached=True, used_bytes=1 << 30, limit_bytes=1 << 30, biggest=biggest)
    lines = explain(_finished(outcome=Outcome.DISK_FULL, exit_code=1, disk=disk))
    assert lines[0] == "job 01JX ran out of disk with exit code 1"
    assert sum(line.startswith("disk: ") for line in lines) == 11
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("has_everything", [True, False])
def test_a_summary_has_six_lines_at_most(outcome, has_everything):
    """And says where the rest is when it left some out."""
    everything = {
        "oom": OomFacts(3, (OomVictim("a", 1),) * 3, 1 << 30, 1 << 30),
        "disk": DiskFacts(True, 1, 1, tuple(PathSize(f"/{number}", 1) for number in range(10))),
        "pressure": Pressure(1.5, 20, 3),
        "warnings": ("w1", "w2", "w3"),
    }
    lines = summary(_finished(outcome=outcome, exit_code=1, **(everything if has_everything else {})))
    assert 1 <= len(lines) <= 6
    assert (f"explain {'01JX'}" in lines[-1]) is has_everything


def test_an_explanation_tells_the_whole_story():
    """Outcome, stalls, warnings, use, phases, attempts, the last minute of memory."""
    result = _finished(
        outcome=Outcome.OUT_OF_MEMORY,
        host="node-7",
        oom=OomFacts(1, (), 1 << 30, 1 << 30),
        pressure=Pressure(cpu_seconds=0.01, memory_seconds=12, io_seconds=None),
        warnings=("the artifact pattern 'x' matched nothing",),
        timings=Timings(queued_at=0, claimed_at=2, started_at=2.1, finished_at=92.1, collected_at=92.3),
        usage=Usage(cpu_user_seconds=80, cpu_system_seconds=4, memory_peak_bytes=1 << 30, pids_peak=7),
        samples=tuple(Sample(second, second, second << 20) for second in range(90)),
        attempts=(Attempt(1, "node-6", outcome=Outcome.LOST, why="its host was lost"), Attempt(2, "node-7")),
    )
    text = "\n".join(explain(result))
    for part in (
        "ran out of memory after 1m30s",
        "memory: the last minute: ",
        "89M at 1m29s",
        "stalled: memory 12s",
        "warning: the artifact pattern",
        "used: cpu 1m24s, memory peak 1G, processes at once 7",
        "time: queue 2s, start 100ms, run 1m30s, collect 200ms on node-7",
        "attempt 1: lost on node-6: its host was lost",
    ):
        assert part in text
    assert len(next(line for line in text.splitlines() if "last minute" in line).split(", ")) <= 10


def test_a_running_job_is_explained_by_its_state():
    """There is no outcome to speak of yet."""
    assert explain(Result("01JX", state=State.RUNNING)) == ["job 01JX is running"]
    assert summary(Result("01JX", state=State.QUEUED)) == ["job 01JX is queued"]


def test_a_queue_timeout_reads_as_one():
    """timed_out with a reason: it never ran."""
    assert summary(_finished(outcome=Outcome.TIMED_OUT, reason="queue_timeout")) == [
        "job 01JX waited in the queue longer than it may"
    ]


def test_a_job_whose_client_was_lost_says_so():
    """Nobody cancelled it: its `dayfly run` was killed, or that one's host is gone."""
    result = _finished(outcome=Outcome.CANCELLED, reason="client_lost")
    assert summary(result) == ["job 01JX was cancelled, since the client that waited for it has gone"]
    assert explain(result)[0] == summary(result)[0]
