"""A worker that offers 4 cpus gives away 4 cpus, and a job of 3 gets its turn among smaller ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import dayfly
from dayfly.jobs.state import Outcome
from dayfly.worker import jobfiles

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_OFFERED = 4.0


def _cpus_of(group: Path) -> float | None:
    """The cpus that a control group may use, as the kernel says; None when it is gone or has no such limit."""
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
    except OSError:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _cpus_in_use(host: Any, groups: list[str]) -> float:
    """The sum over jobs that ran at one and the same moment: those that were there before and not over after."""
    found: dict[Path, float] = {}
    for directory in (host.home / "jobs").glob("*"):
        record = jobfiles.read_record(str(directory))
        for group in groups if record else ():
            cpus = _cpus_of(Path(group) / record.token)
            if cpus is not None:
                found[directory] = cpus
    return sum(cpus for directory, cpus in found.items() if _runs(directory))


def _runs(directory: Path) -> bool:
    """Whether the job is not over: no `exit.json` yet. One that is being discarded has none any more, but loses its
    record before (jobfiles.discard)."""
    return not (directory / "exit.json").exists() and (directory / "record.json").exists()


def _submit(host: Any, cpus: int, seconds: float) -> dayfly.Job:
    return host.submit(command=["sleep", str(seconds)], limits={"cpus": cpus, "memory": "64M", "disk": "32M"})


def test_no_more_than_what_is_offered_is_ever_in_use_and_the_large_job_gets_its_turn(host: Any) -> None:
    """With jobs of 2, 1, 1, then 3, then many small ones, 4 cpus are never exceeded, and nothing slips past the 3."""
    host.flags |= {"cpus": "4", "slots": "4"}
    before = [_submit(host, cpus, seconds) for cpus, seconds in ((2, 0.9), (1, 0.3), (1, 0.6))]
    large = _submit(host, 3, 0.5)
    after = [_submit(host, 1 + number % 2, 0.3) for number in range(20)]
    jobs = [*before, large, *after]
    host.start()
    host.await_state(before[0], "running", "finished")
    groups = host.control_groups()
    samples = []

    def is_over() -> bool:
        samples.append(_cpus_in_use(host, groups))
        return all(job.status().is_finished for job in jobs)

    host.until(is_over)
    assert {job.result().outcome for job in jobs} == {Outcome.SUCCEEDED}
    assert max(samples) == _OFFERED
    _check_turn(large.result(), [job.result() for job in before], [job.result() for job in after])


def _check_turn(large: dayfly.Result, before: list[dayfly.Result], after: list[dayfly.Result]) -> None:
    """From the moment that the large job was the oldest it waited only for jobs that ran already then."""
    first_at = max(each.timings.claimed_at for each in before)
    waited = large.timings.claimed_at - first_at
    print(f"the large job was claimed {waited:.3f} s after it was the oldest")
    assert not [each for each in after if each.timings.claimed_at < large.timings.claimed_at]
    assert waited <= max(each.timings.collected_at - each.timings.claimed_at for each in before)
