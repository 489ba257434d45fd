"""(b) Empty jobs a second, from the first claim to the last end; all are queued before the worker starts."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import rq
from rq.job import Job

from bench.empty import nothing
from bench.rounds import Figures, in_turn, table
from bench.stack import Stack

_JOBS = 150


def report(stack: Stack, rounds: int) -> None:
    contestants = {
        "Worker": _rq(stack, "Worker", "RQ Worker (a fork a job)"),
        "SimpleWorker": _rq(stack, "SimpleWorker", "RQ SimpleWorker (in its own process)"),
        "one": _dayfly(stack, 1, "Dayfly, one slot (a container a job)"),
        "two": _dayfly(stack, 2, "Dayfly, two slots"),
    }
    figures: Figures = in_turn(contestants, rounds, warm_up=1)
    table("(b) empty jobs a second through Redis", figures, "jobs/s", "RQ Worker (a fork a job)", is_rate=True)
    base, *_, one, two = (statistics.median(figures[name]) for name in figures)
    print(f"one slot {one / base:.2f} x RQ's Worker (goal 1.5), two slots {two / base:.2f} x (goal 2.2)")


def _rq(stack: Stack, kind: str, name: str) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        stack.redis.flushall()
        queue = rq.Queue("empty", connection=stack.redis)
        ids = [queue.enqueue(nothing).id for _ in range(_JOBS)]
        with stack.rq_worker(kind, "empty") as pid:
            _await_end(pid)
        jobs = [job for job in Job.fetch_many(ids, stack.redis) if job is not None]
        began = min(job.started_at for job in jobs if job.started_at)
        ended = max(job.ended_at for job in jobs if job.ended_at)
        return {name: _JOBS / (ended - began).total_seconds()}

    return run


def _await_end(pid: int) -> None:
    import os
    import select

    pidfd = os.pidfd_open(pid)
    select.select([pidfd], [], [], 120)
    os.close(pidfd)


def _dayfly(stack: Stack, slots: int, name: str) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        stack.redis.flushall()
        jobs = stack.client().submit_many({"image": "host", "command": ["/bin/true"]} for _ in range(_JOBS))
        with stack.dayfly_worker(slots):
            # The last one first: RQ's workers have no client beside them that hears of each job's end as it comes.
            results = [job.wait(120) for job in reversed(jobs)]
        bad = [result for result in results if result.outcome is None or result.outcome.value != "succeeded"]
        if bad:
            raise RuntimeError(f"{len(bad)} empty jobs did not succeed, the first: {bad[0]}")
        began = min(result.timings.claimed_at for result in results if result.timings.claimed_at)
        ended = max(result.timings.finished_at for result in results if result.timings.finished_at)
        return {name: _JOBS / (ended - began)}

    return run
