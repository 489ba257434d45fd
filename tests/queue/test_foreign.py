"""Jobs from plain RQ producers: run when they are ours, parked with the reason when they are not."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.repeat import Repeat
from rq.serializers import JSONSerializer

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result
from dayfly.jobs.state import Outcome, State
from dayfly.queue.consumer import Consumer
from dayfly.queue.foreign import Intake
from dayfly.queue.reaper import Reaper
from dayfly.queue.records import Records
from dayfly.queue.upkeep import keep_up

DOCUMENT = {"command": ["make"], "limits": {"cpus": 2}, "timeout": "20m", "priority": 5}
CLASS = "default@2000:-:-:p5"
LONG_AGO = 1.0


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue("default", connection=redis, serializer=JSONSerializer)


@pytest.fixture
def intake(redis: Redis) -> Intake:
    return Intake(redis)


def test_a_document_is_adopted(
    queue: Queue, intake: Intake, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """A job by dotted name and JSON document runs as any other, and RQ's producer reads its result."""
    job = queue.enqueue("dayfly.execute", DOCUMENT)
    assert consumer.claim(offer) is None
    assert intake.take("default") == 1
    assert intake.take("default") == 0
    assert queue.job_ids == []
    claim = consumer.claim(offer)
    assert claim is not None
    assert (claim.job_id, claim.class_name, claim.document) == (job.id, CLASS, DOCUMENT)
    assert consumer.finish(claim, ended(claim))
    assert records.get(job.id).outcome is Outcome.SUCCEEDED
    assert records.find(job.id[:8]) == job.id
    job.refresh()
    assert job.is_finished
    assert job.return_value()["outcome"] == "succeeded"
    assert (job.timeout, job.result_ttl) == (1200, 604800)


def test_a_foreign_job_takes_its_place_by_arrival(
    queue: Queue, intake: Intake, consumer: Consumer, offer: Capacity
) -> None:
    """Adopted jobs come in the order in which they were enqueued."""
    ids = [queue.enqueue("dayfly.execute", {"command": [str(number)]}).id for number in range(60)]
    while intake.take("default"):
        pass
    assert [claim.job_id for _ in ids if (claim := consumer.claim(offer))] == ids


def _enqueue_pickle(redis: Redis) -> Job:
    return Queue("default", connection=redis).enqueue("dayfly.execute", DOCUMENT)


def _enqueue_function(redis: Redis) -> Job:
    return _json_queue(redis).enqueue("os.system", "touch /tmp/dayfly-was-here")


def _enqueue_wrong_document(redis: Redis) -> Job:
    return _json_queue(redis).enqueue("dayfly.execute", {"limits": {"pids": 0}})


def _enqueue_keywords(redis: Redis) -> Job:
    return _json_queue(redis).enqueue("dayfly.execute", document=DOCUMENT)


def _enqueue_two_arguments(redis: Redis) -> Job:
    return _json_queue(redis).enqueue("dayfly.execute", DOCUMENT, DOCUMENT)


def _enqueue_text(redis: Redis) -> Job:
    return _json_queue(redis).enqueue("dayfly.execute", "make")


def _enqueue_callback(redis: Redis) -> Job:
    return _json_queue(redis).enqueue("dayfly.execute", DOCUMENT, on_success=Callback("os.getpid"))


def _enqueue_after(redis: Redis) -> Job:
    return _json_queue(redis).enqueue("dayfly.execute", {**DOCUMENT, "after": ["01HZZZZZZZZZZZZZZZZZZZZZZZ"]})


def _enqueue_bomb(redis: Redis) -> Job:
    return _with_payload(redis, zlib.compress(b'["dayfly.execute",null,[{"script":"' + b"a" * (64 << 20) + b'"}],{}]'))


def _enqueue_cut_off(redis: Redis) -> Job:
    return _with_payload(redis, zlib.compress(b'["dayfly.execute",null,[{}],{}]')[:-6])


def _enqueue_large(redis: Redis) -> Job:
    return _with_payload(redis, b"[" * (5 << 20))


def _enqueue_nested(redis: Redis) -> Job:
    return _with_payload(redis, b"[" * 100_000)


def _enqueue_no_call(redis: Redis) -> Job:
    return _with_payload(redis, zlib.compress(b'{"dayfly.execute": 1}'))


def _enqueue_constants(redis: Redis) -> Job:
    return _with_payload(redis, zlib.compress(b'["dayfly.execute",null,[{"timeout":NaN}],{}]'))


def _with_payload(redis: Redis, payload: bytes) -> Job:
    job = _json_queue(redis).enqueue("dayfly.execute", DOCUMENT)
    redis.hset(job.key, "data", payload)
    return job


def _json_queue(redis: Redis) -> Queue:
    return Queue("default", connection=redis, serializer=JSONSerializer)


@pytest.mark.parametrize(
    ("enqueue", "reason"),
    [
        (_enqueue_pickle, "pickle"),
        (_enqueue_function, "os.system"),
        (_enqueue_wrong_document, "limits.pids: must be"),
        (_enqueue_keywords, "one argument"),
        (_enqueue_two_arguments, "one argument"),
        (_enqueue_text, "must be a map"),
        (_enqueue_callback, "success_callback_name"),
        (_enqueue_after, "depends_on"),
        (_enqueue_bomb, "larger than 4 MiB"),
        (_enqueue_cut_off, "cut off"),
        (_enqueue_large, "larger than 4 MiB"),
        (_enqueue_nested, "not JSON"),
        (_enqueue_no_call, "not RQ's"),
        (_enqueue_constants, "timeout"),
    ],
)
def test_what_is_not_ours_is_parked(
    redis: Redis,
    intake: Intake,
    records: Records,
    consumer: Consumer,
    offer: Capacity,
    enqueue: Callable[[Redis], Job],
    reason: str,
) -> None:
    """It is refused with the reason, shown among RQ's failed jobs, never run, and never in the way."""
    job = enqueue(redis)
    good = _json_queue(redis).enqueue("dayfly.execute", DOCUMENT)
    assert intake.take("default") == 2
    result = records.get(job.id).result
    assert (result.state, result.outcome) == (State.FINISHED, Outcome.REJECTED)
    assert reason in str(result.message)
    assert reason in (redis.hget(job.key, "dayfly_parked") or b"").decode()
    queue = _json_queue(redis)
    assert queue.job_ids == []
    assert FailedJobRegistry(queue=queue).get_job_ids() == [job.id]
    assert job.id in [record.id for record in records.ls()]
    claim = consumer.claim(offer)
    assert claim is not None
    assert claim.job_id == good.id


def test_a_payload_changed_after_the_check_is_not_moved(redis: Redis, queue: Queue) -> None:
    """Compare and move: what was not checked is not adopted."""
    from dayfly.queue import scripts

    job = queue.enqueue("dayfly.execute", DOCUMENT)
    digest = "0" * 40
    assert scripts.ADOPT(redis, "default", job.id, CLASS, digest, -1, "{}") == 0
    assert queue.job_ids == [job.id]


def test_a_job_taken_meanwhile_is_not_moved(redis: Redis, queue: Queue, intake: Intake) -> None:
    """An id whose job is gone or no longer queued is only dropped."""
    gone, cancelled = (queue.enqueue("dayfly.execute", DOCUMENT) for _ in range(2))
    redis.delete(gone.key)
    redis.hset(cancelled.key, "status", "canceled")
    assert intake.take("default") == 2
    assert queue.job_ids == []
    assert not redis.exists(gone.key)
    assert redis.zcard("dayfly:index:default") == 0


def test_what_rq_scheduled_comes_in_its_time(redis: Redis, queue: Queue, intake: Intake, consumer: Consumer) -> None:
    """enqueue_in works without RQ's scheduler process."""
    job = queue.enqueue_in(timedelta(hours=1), "dayfly.execute", DOCUMENT)
    reaper = Reaper(redis, ["default"], lease_seconds=30)
    reaper.tick()
    assert queue.job_ids == []
    redis.zadd("rq:scheduled:default", {job.id: LONG_AGO})
    reaper.tick()
    assert queue.job_ids == [job.id]
    assert intake.take("default") == 1
    assert consumer.claim(Capacity(4000, 8192, 40960)) is not None


def test_repeats_of_rq_are_kept(
    redis: Redis, queue: Queue, intake: Intake, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """A job with RQ's Repeat runs again after each success."""
    job = queue.enqueue("dayfly.execute", DOCUMENT, repeat=Repeat(times=1))
    intake.take("default")
    for _ in range(2):
        claim = consumer.claim(offer)
        assert claim is not None
        assert claim.job_id == job.id
        assert consumer.finish(claim, ended(claim))
        keep_up(redis, [CLASS], ["default"])
    assert consumer.claim(offer) is None


def test_a_unique_document_is_there_once(redis: Redis, queue: Queue, intake: Intake, records: Records) -> None:
    """A second one with the same key is parked, since RQ's producer has its id already."""
    document: dict[str, Any] = {**DOCUMENT, "unique": "key"}
    first, second = (queue.enqueue("dayfly.execute", json.loads(json.dumps(document))) for _ in range(2))
    intake.take("default")
    assert records.get(first.id).state is State.QUEUED
    assert records.get(second.id).outcome is Outcome.REJECTED
    assert first.id in str(records.get(second.id).result.message)
