"""What `run` does once its job is in the queue: log, lease, signals, and what it hands over at the end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from dayfly.cli.follow import STDERR, Streams
from dayfly.cli.handing_over import hand_over
from dayfly.cli.interrupts import Interrupts
from dayfly.cli.patience import patiently
from dayfly.cli.say import say
from dayfly.companion import Companion
from dayfly.jobs.errors import DayflyError, QueueError

if TYPE_CHECKING:
    from dayfly.client import Client
    from dayfly.job import Job
    from dayfly.jobs.result import Result
    from dayfly.jobs.spec import JobSpec


def follow_one(client: Client, specs: list[JobSpec], flags: Mapping[str, Any]) -> int:
    """Submit one job and stay with it to its end."""
    with Interrupts() as interrupts:
        job = client.enqueue(specs[0], is_leased=True)
        say(f"job {job.id} on {client.address.describe()}")
        if doubt := client.doubt_of(specs[0]):
            say(doubt)
        streams = Streams(stdout=STDERR if flags["as_json"] else 1, has_times=flags["timestamps"])
        with _staying(client, [job], interrupts):
            copy_log(job, streams)
            result = patiently(job.result)
    return hand_over(client, [result], flags)


def follow_step(client: Client, spec: JobSpec) -> Result:
    """Submit a step of something larger, stay with it to its end, and write all of its output to stderr."""
    from dayfly.job import Job

    with Interrupts() as interrupts:
        job = Job(client, client.producer.submit(spec, client_lease=True))  # which is nobody's `@last`
        with _staying(client, [job], interrupts):
            copy_log(job, Streams(stdout=STDERR))
            result = patiently(job.result)
        if interrupts.is_told:
            raise DayflyError("interrupted", "run it again: steps that were taken are not taken again")
        return result


def follow_all(client: Client, specs: list[JobSpec], flags: Mapping[str, Any]) -> int:
    """Submit several jobs and wait for all; their logs stay apart, `dayfly logs ID` has each."""
    with Interrupts() as interrupts:
        jobs = _submit_all(client, specs)
        say(f"{len(jobs)} jobs on {client.address.describe()}")
        with _staying(client, jobs, interrupts):
            results = _await_all(jobs)
    return hand_over(client, results, flags)


def copy_log(job: Job, streams: Streams) -> None:
    """The whole log, live, also over a Redis that goes away meanwhile."""
    from dayfly.queue.logs import LogCursor

    cursor = LogCursor()

    def copy() -> None:
        for line in job.logs(follow=True, cursor=cursor):
            streams.write(line)

    patiently(copy)


def _submit_all(client: Client, specs: list[JobSpec]) -> list[Job]:
    """All of them or none: those before one that is refused are cancelled."""
    jobs: list[Job] = []
    try:
        for spec in specs:
            jobs.append(client.enqueue(spec, is_leased=True))  # noqa: PERF401 - extend() would forget those before
    except DayflyError as error:
        if not jobs:
            raise
        _cancel(jobs)
        ids = ", ".join(job.id for job in jobs)
        raise DayflyError(f"job {len(jobs) + 1} of {len(specs)}: {error}; cancelled those before it: {ids}") from error
    return jobs


def _await_all(jobs: list[Job]) -> list[Result]:
    """The results in the order of the jobs, each told as it ends, also over a Redis that goes away meanwhile."""
    from dayfly.client import as_completed

    results: dict[str, Result] = {}

    def collect() -> None:
        for job in as_completed(job for job in jobs if job.id not in results):
            results[job.id] = job.result()
            say(f"{job.id} {results[job.id].describe()}")

    patiently(collect)
    return [results[job.id] for job in jobs]


@contextlib.contextmanager
def _staying(client: Client, jobs: list[Job], interrupts: Interrupts) -> Iterator[None]:
    """A companion beside the wait; whatever ends the wait too early cancels the jobs."""
    companion = Companion(
        client.producer,
        [job.id for job in jobs],
        stack=client.address.stack,
        is_leased=True,
        failed=interrupts.fail,
    )
    interrupts.serve(companion)
    with companion:
        try:
            yield
        except BrokenPipeError:
            companion.cancel(now=False)
            companion.cancelled()
            raise
        except DayflyError:
            _cancel(jobs)
            raise


def _cancel(jobs: list[Job]) -> None:
    for job in jobs:
        with contextlib.suppress(QueueError):  # the first error is the one to tell
            job.cancel()
