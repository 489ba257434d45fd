"""(c) From submit to the first byte of the job's log, in the client, on an idle worker."""

from __future__ import annotations

import statistics
import time

from bench.rounds import percentile
from bench.stack import Stack


def report(stack: Stack, rounds: int) -> None:
    stack.redis.flushall()
    took = []
    with stack.dayfly_worker(1):
        client = stack.client()
        for _ in range(rounds + 5):
            begin = time.perf_counter()
            job = client.submit(image="host", command=["/bin/echo", "first"])
            lines = job.logs(follow=True)
            next(lines)
            took.append((time.perf_counter() - begin) * 1000)
            for _ in lines:
                pass
            job.wait(60)
    took = took[5:]
    print(f"\n(c) submit to first log byte, {len(took)} times on an idle worker")
    print(f"p50 {statistics.median(took):.1f} ms (goal 15), p99 {percentile(took, 99):.1f} ms")
