"""A cancel works at any moment of a job's life."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.errors import JobNotFound
from dayfly.jobs.result import Result
from dayfly.jobs.spec import After, JobSpec
from dayfly.jobs.state import Outcome, State
from dayfly.queue.consumer import Consumer, Hold
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records
from dayfly.queue.wakeup import Kind, Wake, Wakeup


def test_a_queued_job_is_over_at_once(
    redis: Redis, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """Cancelled in the queue: finished with a Result, out of the list, never claimed."""
    job_id = producer.submit(JobSpec(name="unit"))
    assert producer.cancel(job_id)
    record = records.get(job_id)
    assert (record.state, record.outcome, record.result.name) == (State.FINISHED, Outcome.CANCELLED, "unit")
    assert record.result.message
    assert redis.llen("rq:queue:default@-:-:-") == 0
    assert redis.zcard("dayfly:index:default") == 0
    assert consumer.claim(offer) is None


def test_a_delayed_job_is_over_at_once(redis: Redis, producer: Producer, records: Records) -> None:
    """Cancelled before its time: finished, out of RQ's registry of scheduled jobs."""
    job_id = producer.submit(JobSpec(delay_seconds=3600))
    assert producer.cancel(job_id)
    assert records.get(job_id).outcome is Outcome.CANCELLED
    assert redis.zcard("rq:scheduled:default@-:-:-") == 0


def test_a_waiting_job_is_over_at_once(redis: Redis, producer: Producer, records: Records) -> None:
    """Cancelled while it waits for another: finished, forgotten by the other."""
    first = producer.submit(JobSpec())
    job_id = producer.submit(JobSpec(after=After((first,))))
    assert producer.cancel(job_id)
    assert records.get(job_id).outcome is Outcome.CANCELLED
    assert redis.zcard("rq:deferred:default@-:-:-") == 0
    assert redis.scard(f"rq:job:{first}:dependents") == 0


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING, State.COLLECTING])
@pytest.mark.parametrize(("now", "hold"), [(False, Hold.CANCEL), (True, Hold.KILL)])
def test_a_held_job_is_flagged_and_its_worker_told(
    redis: Redis,
    producer: Producer,
    records: Records,
    consumer: Consumer,
    offer: Capacity,
    ended: Callable[..., Result],
    state: State,
    now: bool,
    hold: Hold,
) -> None:
    """Cancelled while a worker has it: the worker is woken and sees how; it decides the end."""
    job_id = producer.submit(JobSpec())
    claim = consumer.claim(offer)
    assert claim is not None
    if state is not State.STARTING:
        assert consumer.mark(claim, state)
    with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("dayfly:worker:w1")
        pubsub.get_message(timeout=5)
        assert producer.cancel(job_id, now=now)
        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert message["data"] == job_id.encode()
    record = records.get(job_id)
    assert (record.state, record.is_cancel_asked) == (state, True)
    assert consumer.renew([claim]) == {job_id: hold}
    assert consumer.finish(claim, ended(claim, Outcome.CANCELLED))
    assert records.get(job_id).outcome is Outcome.CANCELLED
    assert not records.get(job_id).is_cancel_asked


def test_a_kill_is_not_taken_back(producer: Producer, consumer: Consumer, offer: Capacity) -> None:
    """A milder cancel after `now` changes nothing."""
    job_id = producer.submit(JobSpec())
    claim = consumer.claim(offer)
    assert claim is not None
    producer.cancel(job_id, now=True)
    producer.cancel(job_id)
    assert consumer.renew([claim]) == {job_id: Hold.KILL}


def test_a_cancelled_job_is_not_tried_again(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A requeue of a job whose cancel was asked for ends it as cancelled."""
    job_id = producer.submit(JobSpec())
    claim = consumer.claim(offer)
    assert claim is not None
    producer.cancel(job_id)
    assert consumer.requeue(claim, count_attempt=True)
    assert records.get(job_id).outcome is Outcome.CANCELLED
    assert consumer.claim(offer) is None


def test_a_finished_job_stays_as_it_is(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """A cancel that comes too late changes nothing and says so."""
    job_id = producer.submit(JobSpec())
    claim = consumer.claim(offer)
    assert claim is not None
    consumer.finish(claim, ended(claim))
    assert not producer.cancel(job_id)
    assert records.get(job_id).outcome is Outcome.SUCCEEDED


def test_an_unknown_job_is_said_to_be(producer: Producer) -> None:
    """Nobody's job cannot be cancelled."""
    with pytest.raises(JobNotFound):
        producer.cancel("01HZZZZZZZZZZZZZZZZZZZZZZZ")


def test_stop_job_of_rq_becomes_a_cancel(
    redis: Redis, producer: Producer, consumer: Consumer, offer: Capacity, wait_for: Callable[[Wakeup, Wake], None]
) -> None:
    """RQ's stop command, as rq-dashboard sends it, flags the job and wakes its worker."""
    from rq.command import send_stop_job_command
    from rq.serializers import JSONSerializer

    job_id = producer.submit(JobSpec())
    claim = consumer.claim(offer)
    assert claim is not None
    with Wakeup(redis, "w1", ["default"]) as wakeup:
        wait_for(wakeup, Wake(Kind.WORK))  # it listens
        send_stop_job_command(redis, job_id, serializer=JSONSerializer)
        wait_for(wakeup, Wake(Kind.CANCEL, job_id=job_id))
    assert consumer.renew([claim]) == {job_id: Hold.CANCEL}
