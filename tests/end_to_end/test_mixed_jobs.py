"""Two hundred jobs of every kind on two slots: each ends as it must, none is lost, none runs twice."""

from __future__ import annotations

import contextlib
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dayfly
from dayfly.jobs.state import Outcome

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(600)]

_MARK = 'echo "$DAYFLY_ATTEMPT" >> "/marks/$DAYFLY_JOB_ID"\n'
_LOG_BYTES = 200 << 20

# Outcome, how many, and the document: every script begins with its mark.
_KINDS: dict[str, tuple[Outcome, int, dict[str, Any]]] = {
    "succeeds": (Outcome.SUCCEEDED, 50, {"script": "echo out; echo err >&2"}),
    "fails": (Outcome.FAILED, 40, {"script": "exit 3"}),
    "is signalled": (Outcome.SIGNALED, 30, {"script": "kill -SEGV $$"}),
    "forks for ever": (
        Outcome.FAILED,
        6,
        {"script": "set +x; bomb() { bomb | bomb & }; bomb; sleep 1; exit 3", "limits": {"pids": 40}},
    ),
    "eats memory": (Outcome.OUT_OF_MEMORY, 10, {"script": "exec tail /dev/zero", "limits": {"memory": "32M"}}),
    "fills its disk": (Outcome.DISK_FULL, 10, {"script": "head -c 64M /dev/zero > full", "limits": {"disk": "16M"}}),
    "sleeps too long": (Outcome.TIMED_OUT, 10, {"script": "exec sleep 300", "timeout": 1}),
    "daemonises": (
        Outcome.SUCCEEDED,
        10,
        {"script": "(trap '' TERM HUP; setsid sh -c 'while :; do sleep 1; done' &) & sleep 0.1"},
    ),
    "is deaf": (Outcome.TIMED_OUT, 4, {"script": "trap '' TERM; sleep 300", "timeout": 1, "stop_grace": 1}),
    "floods its log": (Outcome.SUCCEEDED, 2, {"script": f"set +x; yes | head -c {_LOG_BYTES}"}),
    "is cancelled": (Outcome.CANCELLED, 28, {"script": "sleep 0.3; echo x > made", "artifacts": ["made"]}),
}


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    path = tmp_path / "marks"
    path.mkdir()
    return path


def _mixed(marks: Path, chance: random.Random) -> list[dict[str, Any]]:
    mounts = [{"source": str(marks), "target": "/marks", "writable": True}]
    documents = [
        {**document, "name": kind, "script": _MARK + document["script"], "mounts": mounts}
        for kind, (_, count, document) in _KINDS.items()
        for _ in range(count)
    ]
    chance.shuffle(documents)
    return documents


@contextlib.contextmanager
def _cancelling(jobs: list[dayfly.Job], chance: random.Random) -> Iterator[None]:
    """Meanwhile the jobs are cancelled, one after the other, each at a random moment."""
    is_over = threading.Event()

    def cancel() -> None:
        for job in jobs:
            is_over.wait(chance.uniform(0.0, 1.0))
            job.cancel(now=chance.random() < 0.5)

    thread = threading.Thread(target=cancel)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_two_hundred_jobs_of_every_kind_each_end_once_and_rightly(host: Any, marks: Path) -> None:
    """Whatever 200 jobs do to the host and to one another, each has the outcome of its kind and has run once."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    documents = _mixed(marks, chance)
    assert len(documents) == 200
    host.start()
    jobs = host.client.submit_many(documents)
    doomed = [job for job, each in zip(jobs, documents, strict=True) if each["name"] == "is cancelled"]
    with _cancelling(doomed, chance):
        ended = Counter(job.id for job in dayfly.as_completed(jobs, timeout=500))
    assert ended == Counter({job.id: 1 for job in jobs})
    results = [job.result() for job in jobs]
    assert not [_story(each) for each in results if not _ended_rightly(each)]
    assert not [_story(each) for each in results if not _ran_once(each, marks)]
    print(Counter(str(each.outcome) for each in results))
    _check_floods(host, [each for each in results if each.name == "floods its log"])


def _ended_rightly(result: dayfly.Result) -> bool:
    outcome = _KINDS[result.name][0]
    # A cancel that came too late changes nothing.
    return result.outcome is outcome or (outcome is Outcome.CANCELLED and result.outcome is Outcome.SUCCEEDED)


def _ran_once(result: dayfly.Result, marks: Path) -> bool:
    """One attempt and one mark; a job that was cancelled before its first line has none."""
    mark = marks / result.id
    starts = mark.read_text().split() if mark.exists() else []
    if result.outcome is Outcome.CANCELLED and not starts:
        return len(result.attempts) <= 1
    return starts == ["1"] and [attempt.number for attempt in result.attempts] == [1]


def _check_floods(host: Any, results: list[dayfly.Result]) -> None:
    """The log's head and tail are kept, and what was left out is counted."""
    for result in results:
        kept = sum(len(frame.payload) for frame in host.client.store().read_log(result.id) if frame.stream == 1)
        assert result.log.stdout_bytes == _LOG_BYTES
        assert kept + result.log.dropped_bytes >= _LOG_BYTES
        assert result.log.dropped_bytes > _LOG_BYTES // 2


def _story(result: dayfly.Result) -> tuple[object, ...]:
    return result.id, result.name, str(result.outcome), result.exit_code, result.message, len(result.attempts)
