"""Outcomes and the exit code table."""

import pytest

from dayfly.jobs.result import SERVICE_NOT_READY, Result
from dayfly.jobs.state import EXIT_CODES, Outcome, State, exit_code_of


@pytest.mark.parametrize(
    ("outcome", "exit_code", "signal", "code"),
    [
        (Outcome.SUCCEEDED, 0, None, 0),
        (Outcome.FAILED, 3, None, 3),
        (Outcome.FAILED, 124, None, 124),
        (Outcome.FAILED, 137, None, 137),
        (Outcome.FAILED, 126, None, 126),
        (Outcome.FAILED, 127, None, 127),
        (Outcome.FAILED, None, None, 125),
        (Outcome.SIGNALED, None, 15, 143),
        (Outcome.TIMED_OUT, None, 15, 124),
        (Outcome.TIMED_OUT, 0, None, 124),
        (Outcome.OUT_OF_MEMORY, 1, None, 137),
        (Outcome.DISK_FULL, 2, None, 2),
        (Outcome.DISK_FULL, None, 6, 134),
        (Outcome.CANCELLED, 0, None, 130),
        (Outcome.LOST, None, None, 125),
        (Outcome.REJECTED, None, None, 125),
    ],
)
def test_the_exit_code_is_the_one_of_the_interface(outcome, exit_code, signal, code):
    """The job's own where it has one to say, a fixed one where Dayfly ended it."""
    result = Result("X", state=State.FINISHED, outcome=outcome, exit_code=exit_code, signal=signal)
    assert exit_code_of(result) == result.exit_status == code


def test_every_outcome_has_its_row():
    """The table that help prints is the one that decides: one row for each outcome."""
    assert sorted(outcome for rule in EXIT_CODES for outcome in rule.outcomes) == sorted(Outcome)
    assert all(rule.meaning and rule.code for rule in EXIT_CODES)


def test_a_job_that_goes_on_has_no_exit_code():
    """Asking for one is a mistake of the caller."""
    with pytest.raises(ValueError, match="running"):
        exit_code_of(Result("X", state=State.RUNNING))


def test_a_job_whose_service_was_not_ready_ends_run_with_1():
    """It failed, and has no exit code of its own: 125 would say that Dayfly did."""
    result = Result("X", state=State.FINISHED, outcome=Outcome.FAILED, reason=SERVICE_NOT_READY)
    assert (exit_code_of(result), result.describe()) == (1, "failed before it began")
