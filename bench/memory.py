"""(e) Proportional set size of everything of ours, and what a running job's container consists of."""

from __future__ import annotations

import contextlib
import os
import statistics
from pathlib import Path

from bench import features
from bench.stack import Stack

_SLOTS = 2


def report(stack: Stack) -> None:
    stack.redis.flushall()
    with stack.dayfly_worker(_SLOTS) as agent:
        client = stack.client()
        jobs = [client.submit(image="host", command=["/bin/sh", "-c", "echo up; sleep 120"]) for _ in range(_SLOTS)]
        for job in jobs:
            next(job.logs(follow=True))
        _show(agent, [job.id for job in jobs])
        for job in jobs:
            job.cancel(now=True)
        for job in jobs:
            job.wait(60)


def _show(agent: int, job_ids: list[str]) -> None:
    launcher = _one(agent, "dayfly: launcher")
    keepers = {job_id: _one(launcher, f"dayfly: keeper {job_id}") for job_id in job_ids}
    inits = {job_id: _children(keeper)[0] for job_id, keeper in keepers.items()}
    each = [_pss(keepers[job_id]) + _pss(inits[job_id]) for job_id in job_ids]
    warm = [pid for pid in _children(launcher) if pid not in keepers.values()]
    print(f"\n(e) memory (PSS, MiB) with {len(job_ids)} jobs running and {len(warm)} keepers warm")
    print(f"agent {_pss(agent):.1f}, launcher {_pss(launcher):.1f} (fixed)")
    print(f"per running job: {statistics.mean(each):.2f} (keeper + init; goal 4)")
    if warm:
        each_warm = [_pss(pid) + sum(_pss(child) for child in _children(pid)) for pid in warm]
        print(f"per warm keeper: {statistics.mean(each_warm):.2f}")
    features.show(_children(inits[job_ids[0]])[0])


def _one(parent: int, title: str) -> int:
    return next(pid for pid in _children(parent) if _title(pid).startswith(title))


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0 ").decode(errors="replace")


def _children(parent: int) -> list[int]:
    found = []
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(pid)
    return found


def _pss(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
