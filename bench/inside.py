"""(d) The same work inside, from start to end as the keeper saw them, and outside, by this process's clock."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable

from bench.rounds import in_turn
from bench.stack import Stack

_CPU = "awk 'BEGIN { for (i = 0; i < 12000000; i++) s += i % 7; print s }'"
_FILES = """
mkdir d
i=0
while [ $i -lt 6000 ]; do echo $i >d/$i; i=$((i+1)); done
for k in 1 2 3; do cat d/* | cksum; done
cp -r d e
rm -r d e
"""
_WORK = {"CPU-bound": (_CPU, 2), "file-heavy": (_FILES, 5)}


def report(stack: Stack, rounds: int) -> None:
    stack.redis.flushall()
    print("\n(d) the same work inside a container and outside")
    with stack.dayfly_worker(1):
        for name, (script, goal) in _WORK.items():
            contestants = {"inside": _inside(stack, script), "outside": _outside(stack, script)}
            figures = in_turn(contestants, rounds, warm_up=1)
            inside, outside = (statistics.median(figures[each]) for each in ("inside", "outside"))
            ratio = (inside / outside - 1) * 100
            print(f"{name:12} inside {inside:.3f} s, outside {outside:.3f} s: {ratio:+.1f} % (goal {goal})")


def _inside(stack: Stack, script: str) -> Callable[[], dict[str, float]]:
    client = stack.client()

    def run() -> dict[str, float]:
        timings = client.submit(image="host", command=["/bin/sh", "-c", script]).wait(300).timings
        assert timings.started_at is not None
        assert timings.finished_at is not None
        return {"inside": timings.finished_at - timings.started_at}

    return run


def _outside(stack: Stack, script: str) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        directory = tempfile.mkdtemp(dir=stack.directory)
        begin = time.perf_counter()
        subprocess.run(["/bin/sh", "-c", script], cwd=directory, stdout=subprocess.DEVNULL, check=True)
        took = time.perf_counter() - begin
        shutil.rmtree(directory)
        return {"outside": took}

    return run
