"""What `run` does once its job is in the queue: log, lease, signals, result, artifacts, exit code."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dayfly.cli.follow import STDERR, Streams
from dayfly.cli.interrupts import Interrupts
from dayfly.cli.patience import patiently
from dayfly.cli.say import say
from dayfly.companion import Companion
from dayfly.jobs.errors import DayflyError, QueueError
from dayfly.jobs.state import exit_code_of

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
        with _companion(client, [job], interrupts) as companion:
            try:
                copy_log(job, streams)
                result = patiently(job.result)
            except BrokenPipeError:
                companion.cancel(now=False)
                companion.cancelled()
                raise
            except DayflyError:
                with contextlib.suppress(QueueError):  # the first error is the one to tell
                    job.cancel()
                raise
    deliver(client, result, flags["out"])
    report(result)
    _hand_over([result], flags)
    return exit_code_of(result)


def follow_all(client: Client, specs: list[JobSpec], flags: Mapping[str, Any]) -> int:
    """Submit several jobs and wait for all; their logs stay apart, `dayfly logs ID` has each."""
    with Interrupts() as interrupts:
        jobs = [client.enqueue(spec, is_leased=True) for spec in specs]
        say(f"{len(jobs)} jobs on {client.address.describe()}")
        with _companion(client, jobs, interrupts):
            results = _await_all(jobs)
    for result in results:
        deliver(client, result, flags["out"])
    _hand_over(results, flags)
    return max((exit_code_of(result) for result in results), default=0)


def copy_log(job: Job, streams: Streams) -> None:
    """The whole log, live, also over a Redis that goes away meanwhile."""
    from dayfly.queue.logs import LogCursor

    cursor = LogCursor()

    def copy() -> None:
        for line in job.logs(follow=True, cursor=cursor):
            streams.write(line)

    patiently(copy)


def _await_all(jobs: list[Job]) -> list[Result]:
    """The results in the order in which the jobs end, also over a Redis that goes away meanwhile."""
    from dayfly.client import as_completed

    results: dict[str, Result] = {}

    def collect() -> None:
        for job in as_completed(job for job in jobs if job.id not in results):
            results[job.id] = job.result()
            say(f"{job.id} {results[job.id].describe()}")

    patiently(collect)
    return list(results.values())


def deliver(client: Client, result: Result, out: str) -> None:
    """Bring the artifacts to where the user wants them."""
    if not result.artifacts:
        return
    from dayfly.worker.delivery import deliver as write_below

    written = write_below(client.store(), result.artifacts, Path(out))
    say(f"{len(written)} artifact{'s' if len(written) > 1 else ''} in {out}")


def report(result: Result) -> None:
    """What one has to know beyond the log: nothing of a job that succeeded without a warning."""
    from dayfly.jobs.verdict import summary

    if result.is_success:
        for warning in result.warnings:
            say(f"warning: {warning}")
    else:
        for line in summary(result):
            say(line)


def _companion(client: Client, jobs: list[Job], interrupts: Interrupts) -> Companion:
    companion = Companion(
        client.producer,
        [job.id for job in jobs],
        stack=client.address.stack,
        is_leased=True,
        failed=interrupts.fail,
    )
    interrupts.serve(companion)
    return companion


def _hand_over(results: list[Result], flags: Mapping[str, Any]) -> None:
    """`--json` and `--result`: one Result, or one a line when there are several."""
    lines = [json.dumps(result.to_json()) for result in results]
    if flags["as_json"]:
        click.echo("\n".join(lines))
    if flags["result"] is not None:
        try:
            Path(flags["result"]).write_text("\n".join(lines) + "\n")
        except OSError as error:
            raise DayflyError(f"cannot write the result to {flags['result']}: {error.strerror}") from error
