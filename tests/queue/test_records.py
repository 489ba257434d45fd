"""Finding jobs and waiting for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.errors import AmbiguousId, JobNotFound
from dayfly.jobs.result import Result, Sample
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import Outcome, State
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records

DEADLINE_SECONDS = 20.0


def test_a_job_is_followed_through_its_states(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """State, worker, attempt and times are there at every step."""
    job_id = producer.submit(JobSpec(name="unit", command=("true",)))
    queued = records.get(job_id)
    assert (queued.state, queued.name, queued.attempt, queued.worker) == (State.QUEUED, "unit", 0, None)
    claim = consumer.claim(offer)
    assert claim is not None
    starting = records.get(job_id)
    assert (starting.state, starting.worker, starting.attempt) == (State.STARTING, "w1", 1)
    assert starting.result.attempts[0].number == 1
    for state in (State.RUNNING, State.COLLECTING):
        consumer.mark(claim, state)
        assert records.get(job_id).state is state
    consumer.finish(claim, ended(claim))
    finished = records.get(job_id)
    assert (finished.state, finished.outcome) == (State.FINISHED, Outcome.SUCCEEDED)
    assert None not in (finished.submitted_at, finished.queued_at, finished.claimed_at, finished.ended_at)
    assert finished.spec.name == "unit"


def test_a_long_result_comes_back_whole(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """What the worker said is what is read, also when it was compressed on the way."""
    job_id = producer.submit(JobSpec())
    claim = consumer.claim(offer)
    assert claim is not None
    result = ended(claim, samples=tuple(Sample(float(each), each / 2, each << 20) for each in range(600)))
    consumer.finish(claim, result)
    assert records.get(job_id).result == result


def test_a_prefix_finds_one_job(producer: Producer, records: Records) -> None:
    """A unique beginning is enough; an ambiguous one names the candidates."""
    ids = producer.submit_many(JobSpec() for _ in range(3))
    assert records.find(ids[1]) == ids[1]
    assert records.find(ids[1][:25]) in ids
    with pytest.raises(AmbiguousId) as caught:
        records.find(ids[0][:2])
    assert set(caught.value.candidates) == set(ids)
    for unknown in ("", "7", "*", f"{ids[0]}X"):
        with pytest.raises(JobNotFound):
            records.find(unknown)


def test_ls_filters(producer: Producer, records: Records, consumer: Consumer, offer: Capacity) -> None:
    """The latest first, by state, queue, label, name, time and number."""
    plain = producer.submit(JobSpec(name="a"))
    labelled = producer.submit(JobSpec(name="b", labels={"disk": "nvme"}, queue="other"))
    delayed = producer.submit(JobSpec(name="a", delay_seconds=60))
    assert consumer.claim(offer) is not None

    def ids(**filters: object) -> list[str]:
        return [record.id for record in records.ls(**filters)]  # type: ignore[arg-type]

    assert ids() == [delayed, labelled, plain]
    assert ids(limit=2) == [delayed, labelled]
    assert ids(name="a") == [delayed, plain]
    assert ids(queue="other") == ids(label="disk") == ids(label="disk=nvme") == [labelled]
    assert ids(label="disk=hdd") == []
    assert ids(state="starting") == [plain]
    assert ids(state=State.DELAYED) == [delayed]
    assert ids(since=time.time() + 60) == []
    assert ids(since=time.time() - 60) == [delayed, labelled, plain]


def test_ls_reads_page_by_page(producer: Producer, records: Records) -> None:
    """More jobs than one page holds are all there, once."""
    ids = producer.submit_many(JobSpec() for _ in range(450))
    assert sorted(record.id for record in records.ls()) == sorted(ids)


def test_waiting_ends_with_the_last_job(
    valkey: str, producer: Producer, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """Each end is told once, as it comes, whether before the wait or during it."""
    ids = producer.submit_many(JobSpec() for _ in range(20))
    first = consumer.claim(offer)
    assert first is not None
    consumer.finish(first, ended(first))
    told: list[str] = []
    begun = threading.Event()

    def wait() -> None:
        redis = connect(valkey)
        for job_id in Records(redis).finished(ids, time.monotonic() + DEADLINE_SECONDS):
            told.append(job_id)
            begun.set()
        redis.close()

    thread = threading.Thread(target=wait)
    thread.start()
    assert begun.wait(DEADLINE_SECONDS)
    while (claim := consumer.claim(offer)) is not None:
        consumer.finish(claim, ended(claim))
    thread.join(DEADLINE_SECONDS)
    assert told == ids


def test_waiting_has_a_deadline(producer: Producer, records: Records) -> None:
    """TimeoutError names who is missing; an unknown job is not waited for."""
    job_id = producer.submit(JobSpec())
    with pytest.raises(TimeoutError, match=job_id):
        records.wait([job_id], timeout=0)
    with pytest.raises(JobNotFound):
        records.wait(["01HZZZZZZZZZZZZZZZZZZZZZZZ"])
    assert records.wait([]) == []


def test_an_expired_job_is_dropped_from_the_lists(redis: Redis, producer: Producer, records: Records) -> None:
    """Upkeep forgets the names of jobs that Redis has dropped."""
    from dayfly.queue.upkeep import keep_up

    old, new = producer.submit(JobSpec()), producer.submit(JobSpec())
    redis.delete(f"rq:job:{old}")
    redis.zadd("dayfly:jobs", {old: 1, new: 1})
    keep_up(redis, ["default@-:-:-"], ["default"])
    assert redis.zrange("dayfly:jobs", 0, -1) == redis.zrange("dayfly:ids", 0, -1) == [new.encode()]
    assert [record.id for record in records.ls()] == [new]


def test_importing_the_producer_is_light() -> None:
    """A program that only submits loads neither pydantic nor anything of workers and containers."""
    unwanted = ("pydantic", "pyroute2", "rich", "structlog", "dayfly.worker", "dayfly.runtime", "dayfly.jobs.door")
    code = f"import sys, dayfly.queue.producer; print(*[name for name in {unwanted} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_key_prefix_of_rq_holds_for_ours(valkey: str, redis: Redis) -> None:
    """RQ_KEY_PREFIX, which RQ reads at import, is followed by every script and key."""
    code = f"""
from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import Outcome, State
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer
from dayfly.queue.reaper import Reaper
from dayfly.queue.records import Records
redis = connect({valkey!r})
offer = Capacity(1000, 1000, 1000)
consumer = Consumer(redis, "w", ["default"], "h", {{}}, offer=offer, share=offer)
consumer.register()
job_id = Producer(redis).submit(JobSpec())
claim = consumer.claim(offer)
assert claim is not None and claim.job_id == job_id
Reaper(redis, ["default"], 30).tick()
assert consumer.finish(claim, Result(id=job_id, state=State.FINISHED, outcome=Outcome.SUCCEEDED))
assert Records(redis).get(job_id).outcome is Outcome.SUCCEEDED
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "RQ_KEY_PREFIX": "team-{a}"})
    keys = redis.keys("*")
    assert keys
    assert all(key.startswith(b"team-{a}:") for key in keys)
