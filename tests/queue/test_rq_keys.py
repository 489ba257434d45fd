"""What we leave in Redis, key by key and field by field, against what RQ's own SimpleWorker leaves.

Each test makes one transition twice, in two databases of one server: with RQ's classes and with ours. Differences are
listed with their reasons; anything else fails.
"""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import Outcome
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer

OFFER = Capacity(4000, 8192, 40960)
NAME = "worker-1"
PROBE = "dayfly_test_probe"

# Of ours alone, in the hash of a job: RQ passes over fields that it does not know.
OUR_KEYS = ("rq:job:JOB", "rq:worker:WORKER")
OURS = re.compile(r"need|seq|dayfly_\w+")

# Keys of ours alone are not compared: RQ never looks at them.
OWN_KEYS = re.compile(r"dayfly:")


@dataclass
class Side:
    """One of the two databases, and how its names read."""

    redis: Redis
    names: dict[str, str]

    def keys(self) -> dict[str, Any]:
        found = {}
        for key in self.redis.keys("*"):
            name = self._plain(key)
            if not OWN_KEYS.match(key.decode()) and not name.startswith("rq:clean_"):
                found[name] = self._value(key)
        return found

    def _value(self, key: bytes) -> Any:
        kind = self.redis.type(key)
        if kind == b"hash":
            return {name.decode(): self._plain(value) for name, value in self.redis.hgetall(key).items()}
        if kind == b"list":
            return [self._plain(each) for each in self.redis.lrange(key, 0, -1)]
        if kind == b"set":
            return sorted({self._plain(each) for each in self.redis.smembers(key)})
        if kind == b"zset":
            return {self._plain(each): _score(score) for each, score in self.redis.zrange(key, 0, -1, withscores=True)}
        assert kind == b"stream"
        return [
            {name.decode(): self._plain(value) for name, value in fields.items()}
            for _, fields in self.redis.xrange(key)
        ]

    def _plain(self, value: bytes) -> str:
        text = value.decode(errors="replace")
        for name, plain in sorted(self.names.items(), key=lambda pair: -len(pair[0])):
            text = text.replace(name, plain)
        text = re.sub(r"\b[0-9a-f]{32}\b", "EXECUTION", text)
        text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", "TIME", text)
        return re.sub(r"^1\d{9}(\.\d+)?$", "TIME", text)


def _score(score: float) -> str:
    return "inf" if score == float("inf") else "finite"


@pytest.fixture
def rq_side(valkey: str) -> Iterator[Side]:
    yield from _side(f"{valkey}?db=1", {})


@pytest.fixture
def our_side(valkey: str) -> Iterator[Side]:
    yield from _side(f"{valkey}?db=2", {})


def _side(url: str, names: dict[str, str]) -> Iterator[Side]:
    redis = connect(url)
    yield Side(redis, {**names, NAME: "WORKER", "default@-:-:-": "QUEUE", "default": "QUEUE"})
    redis.close()


class ByRQ:
    """The transitions as RQ makes them."""

    def __init__(self, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
        self.side = side
        self.started: dict[str, Any] | None = None
        probe = types.ModuleType(PROBE)
        probe.succeed = self._look  # type: ignore[attr-defined]
        probe.fail = self._fail  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, PROBE, probe)
        self.queue = Queue("default", connection=side.redis, serializer=JSONSerializer)
        self.worker = SimpleWorker([self.queue], connection=side.redis, name=NAME, serializer=JSONSerializer)
        self.worker.register_birth()

    def enqueue(self, function: str = "succeed", **options: Any) -> Job:
        times = {"job_timeout": -1, "result_ttl": 604800, "failure_ttl": 604800}
        job = self.queue.enqueue(f"{PROBE}.{function}", {}, **times, **options)
        self.side.names[job.id] = "JOB"
        return job

    def work(self) -> None:
        found = self.worker.dequeue_job_and_maintain_ttl(timeout=None)
        assert found is not None
        # what RQ's work() loop does around it
        self.side.redis.lrem(self.queue.intermediate_queue_key, 1, found[0].id)
        self.worker.execute_job(*found)

    def _look(self, _: object) -> str:
        self.started = self.side.keys()
        return "fine"

    def _fail(self, _: object) -> None:
        raise ValueError("on purpose")


class ByUs:
    """The same transitions by Dayfly."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.producer = Producer(side.redis)
        self.consumer = Consumer(side.redis, NAME, ["default"], "h", {}, offer=OFFER, share=OFFER.share(4))
        self.consumer.register()

    def enqueue(self) -> str:
        job_id = self.producer.submit(JobSpec(command=("true",)))
        self.side.names[job_id] = "JOB"
        return job_id


@pytest.fixture
def by_rq(rq_side: Side, monkeypatch: pytest.MonkeyPatch) -> ByRQ:
    return ByRQ(rq_side, monkeypatch)


@pytest.fixture
def by_us(our_side: Side) -> ByUs:
    return ByUs(our_side)


def compare(theirs: dict[str, Any], ours: dict[str, Any], differences: dict[str, str]) -> None:
    """`differences`: "key" or "key field" -> why they differ there."""
    reasons = {**ALWAYS, **differences}
    found = set()
    for key in sorted(theirs.keys() | ours.keys()):
        left, right = _parts(theirs.get(key)), _parts(ours.get(key))
        if (key in theirs) != (key in ours):
            found.add(key)
            continue
        for name in left.keys() | right.keys():
            if left.get(name) != right.get(name) and not (key in OUR_KEYS and OURS.fullmatch(name)):
                found.add(f"{key} {name}")
    assert found <= reasons.keys(), {each: (_at(theirs, each), _at(ours, each)) for each in found - reasons.keys()}
    unused = differences.keys() - found
    assert not unused, f"no longer different: {unused}"


def _parts(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {f"{index}.{name}": each for index, entry in enumerate(value) for name, each in entry.items()}
    return {"": value}


def _at(keys: dict[str, Any], place: str) -> Any:
    key, _, name = place.partition(" ")
    return _parts(keys.get(key)).get(name)


ALWAYS = {
    "rq:job:JOB data": "another function and argument",
    "rq:job:JOB description": "the job's name or command instead of a Python call",
    "rq:worker:WORKER ip_address": "the port of another connection",
    "rq:worker:WORKER state": "RQ first writes it with the first job; ours says idle from birth on",
    "rq:worker:WORKER total_working_time": "how long it took",
}


def test_queued(by_rq: ByRQ, by_us: ByUs) -> None:
    """A submitted job leaves what RQ's enqueue leaves."""
    by_rq.enqueue()
    by_us.enqueue()
    compare(by_rq.side.keys(), by_us.side.keys(), {})


def test_claimed(by_rq: ByRQ, by_us: ByUs) -> None:
    """A claimed job leaves what RQ's worker leaves while it runs one."""
    by_rq.enqueue()
    by_rq.work()
    by_us.enqueue()
    assert by_us.consumer.claim(OFFER) is not None
    assert by_rq.started is not None
    compare(
        by_rq.started,
        by_us.side.keys(),
        {
            "rq:wip:QUEUE JOB:EXECUTION": "+inf: a lapsed score would let any reader of RQ's fail the job",
            "rq:executions:JOB EXECUTION": "+inf, for the same reason",
        },
    )


def test_finished(by_rq: ByRQ, by_us: ByUs, ended: Callable[..., Result]) -> None:
    """A job that succeeded leaves what RQ's worker leaves of one."""
    by_rq.enqueue()
    by_rq.work()
    by_us.enqueue()
    claim = by_us.consumer.claim(OFFER)
    assert claim is not None
    assert by_us.consumer.finish(claim, ended(claim))
    compare(
        by_rq.side.keys(),
        by_us.side.keys(),
        {"rq:results:JOB 0.return_value": "a short summary instead of a function's value"},
    )


def test_failed(by_rq: ByRQ, by_us: ByUs, ended: Callable[..., Result]) -> None:
    """A job that failed leaves what RQ's worker leaves of one."""
    by_rq.enqueue("fail")
    by_rq.work()
    by_us.enqueue()
    claim = by_us.consumer.claim(OFFER)
    assert claim is not None
    assert by_us.consumer.finish(claim, ended(claim, Outcome.FAILED, message="on purpose"))
    compare(
        by_rq.side.keys(),
        by_us.side.keys(),
        {"rq:results:JOB 0.exc_string": "the explanation instead of a traceback"},
    )


def test_cancelled(by_rq: ByRQ, by_us: ByUs) -> None:
    """A job that was cancelled in the queue leaves what Job.cancel leaves."""
    by_rq.enqueue().cancel()
    by_us.producer.cancel(by_us.enqueue())
    compare(
        by_rq.side.keys(),
        by_us.side.keys(),
        {
            "rq:results:JOB": "RQ leaves no Result of a cancelled job; ours says why, and tells followers of its end",
            "rq:job:JOB ended_at": "RQ leaves it empty",
            "rq:job:JOB last_heartbeat": "RQ leaves it empty",
        },
    )


def test_requeued(by_rq: ByRQ, by_us: ByUs) -> None:
    """A job that is tried again leaves what RQ's retry leaves."""
    by_rq.enqueue("fail", retry=Retry(max=2, enqueue_at_front=True))
    by_rq.work()
    by_us.enqueue()
    claim = by_us.consumer.claim(OFFER)
    assert claim is not None
    assert by_us.consumer.requeue(claim, count_attempt=True)
    compare(
        by_rq.side.keys(),
        by_us.side.keys(),
        {
            "rq:job:JOB retries_left": "the document's policy and our count of attempts decide",
            "rq:job:JOB retry_intervals": "likewise",
            "rq:job:JOB enqueue_at_front_on_retry": "a job always goes back to where its age puts it",
            "rq:worker:WORKER failed_job_count": "RQ counts the retried attempt as a failed job; ours counts jobs",
            "rq:worker:WORKER total_working_time": "likewise, by finished jobs",
        },
    )


@pytest.mark.parametrize("outcome", [Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED])
def test_everything_expires(by_us: ByUs, ended: Callable[..., Result], outcome: Outcome) -> None:
    """After a job's end no key of its own stays for ever."""
    job_id = by_us.enqueue()
    claim = by_us.consumer.claim(OFFER)
    assert claim is not None
    assert by_us.consumer.finish(claim, ended(claim, outcome))
    redis = by_us.side.redis
    of_the_job = [key for key in redis.keys("*") if job_id.encode() in key]
    assert of_the_job
    assert all(redis.ttl(key) > 0 for key in of_the_job)
    assert redis.zcard("dayfly:leases") == 0
