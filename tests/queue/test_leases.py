"""Claims that nobody renews go back; nothing else does, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import CLIENT_LOST, QUEUE_TIMEOUT, Attempt, Result
from dayfly.jobs.spec import JobSpec, Retry
from dayfly.jobs.state import Outcome, State
from dayfly.queue.claims import Claim
from dayfly.queue.consumer import Consumer, Hold
from dayfly.queue.logs import LogLine, LogStream
from dayfly.queue.producer import Producer
from dayfly.queue.reaper import Reaper
from dayfly.queue.records import Records

LONG_AGO = 1.0


@pytest.fixture
def reaper(redis: Redis) -> Reaper:
    """A reaper whose server has been answering for long."""
    reaper = Reaper(redis, ["default"], lease_seconds=30)
    reaper.tick()
    redis.hset("dayfly:redis", "since", LONG_AGO)
    return reaper


def test_an_expired_lease_gives_the_job_back(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """The job of a worker that is gone is claimed again, its first attempt counted and told."""
    job_id = producer.submit(JobSpec())
    lost = _claim(consumer, offer)
    _expire(redis, lost)
    reaper.tick()
    record = records.get(job_id)
    assert record.state is State.QUEUED
    (attempt,) = record.result.attempts
    assert (attempt.number, attempt.outcome, attempt.worker) == (1, Outcome.LOST, "w1")
    again = _claim(consumer, offer)
    assert (again.job_id, again.attempt, len(again.earlier)) == (job_id, 2, 1)
    assert again.fence > lost.fence


def test_the_lost_worker_can_do_no_more(
    redis: Redis,
    reaper: Reaper,
    producer: Producer,
    records: Records,
    consumer: Consumer,
    log_stream: LogStream,
    offer: Capacity,
    ended: Callable[..., Result],
) -> None:
    """Late marks, logs, renewals, requeues and results of a lost claim are refused; the second attempt's count."""
    job_id = producer.submit(JobSpec())
    lost = _claim(consumer, offer)
    _expire(redis, lost)
    reaper.tick()
    held = _claim(consumer, offer)
    assert not consumer.mark(lost, State.RUNNING)
    assert consumer.renew([lost]) == {job_id: Hold.LOST}
    assert not consumer.requeue(lost, count_attempt=False)
    assert not consumer.finish(lost, ended(lost, Outcome.FAILED))
    assert consumer.turn(lost, ended(lost, Outcome.FAILED), offer) == (False, None)
    log_stream.append(lost, [LogLine(1.0, 1, b"late\n")])
    assert list(log_stream.read(job_id)) == []
    assert consumer.finish(held, ended(held))
    assert records.get(job_id).outcome is Outcome.SUCCEEDED
    assert redis.xlen(f"rq:results:{job_id}") == 1


def test_a_renewed_lease_holds(
    redis: Redis, reaper: Reaper, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """A lease that had run out is renewed as long as nobody reaped it."""
    producer.submit(JobSpec())
    claim = _claim(consumer, offer)
    _expire(redis, claim)
    assert consumer.renew([claim]) == {claim.job_id: Hold.HELD}
    reaper.tick()
    assert consumer.renew([claim]) == {claim.job_id: Hold.HELD}


def test_attempts_run_out(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A job that kills every worker ends as lost after its last attempt, with the story of all."""
    job_id = producer.submit(JobSpec(retry=Retry(max=2)))
    for _ in range(3):
        _expire(redis, _claim(consumer, offer))
        reaper.tick()
    assert consumer.claim(offer) is None
    result = records.get(job_id).result
    assert (result.state, result.outcome) == (State.FINISHED, Outcome.LOST)
    assert [attempt.number for attempt in result.attempts] == [1, 2, 3]


def test_a_policy_without_lost_is_kept(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A job that must not run twice is not tried again."""
    job_id = producer.submit(JobSpec(retry=Retry(max=0)))
    _expire(redis, _claim(consumer, offer))
    reaper.tick()
    assert records.get(job_id).outcome is Outcome.LOST


def test_a_cancelled_job_of_a_lost_worker_is_cancelled(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A cancel that the worker could not carry out any more ends the job."""
    job_id = producer.submit(JobSpec(retry=Retry(max=0)))
    claim = _claim(consumer, offer)
    producer.cancel(job_id)
    _expire(redis, claim)
    reaper.tick()
    assert records.get(job_id).outcome is Outcome.CANCELLED


def test_nothing_is_reaped_right_after_the_server_came_back(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """While a server was away nobody could renew: leases count again after one whole lease."""
    job_id = producer.submit(JobSpec())
    _expire(redis, _claim(consumer, offer))
    redis.hset("dayfly:redis", "run_id", "of the process before")
    reaper.tick()
    assert records.get(job_id).state is State.STARTING
    redis.hset("dayfly:redis", mapping={"since": LONG_AGO, "asked": LONG_AGO})  # nobody could ask for long
    reaper.tick()
    assert records.get(job_id).state is State.STARTING
    redis.hset("dayfly:redis", "since", LONG_AGO)
    reaper.tick()
    assert records.get(job_id).state is State.QUEUED


def test_two_reapers_give_a_job_back_once(
    redis: Redis, reaper: Reaper, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """Several agents reap at once; the job is in its list once."""
    producer.submit(JobSpec())
    claim = _claim(consumer, offer)
    _expire(redis, claim)
    stale = Reaper(redis, ["default"], lease_seconds=30)
    reaper.tick()
    _expire(redis, claim)  # as if the second had seen it before the first acted
    stale.tick()
    assert redis.llen("rq:queue:default@-:-:-") == 1
    assert redis.zcard("dayfly:leases") == 0


def test_a_worker_finds_its_executions(
    producer: Producer, make_consumer: Callable[..., Consumer], offer: Capacity
) -> None:
    """A worker that starts again gets back the claims of the one before, whole, and nobody else's."""
    for number in range(3):
        producer.submit(JobSpec(name=str(number)), client_lease=number == 1)
    one, two = make_consumer("one"), make_consumer("two")
    claims = [_claim(one, offer), _claim(one, offer)]
    _claim(two, offer)
    assert sorted(make_consumer("one").executions(), key=lambda claim: claim.job_id) == claims


def test_an_uncounted_requeue_is_no_attempt(producer: Producer, consumer: Consumer, offer: Capacity) -> None:
    """What was ours to repeat does not use up the job's attempts, and the job keeps its place."""
    first = producer.submit(JobSpec())
    producer.submit(JobSpec())
    assert consumer.requeue(_claim(consumer, offer), count_attempt=False)
    again = _claim(consumer, offer)
    assert (again.job_id, again.attempt, again.earlier) == (first, 1, ())


def test_a_pause_delays_the_next_attempt(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A requeue with a pause waits in RQ's registry of scheduled jobs."""
    job_id = producer.submit(JobSpec())
    attempt = Attempt(number=1, outcome=Outcome.FAILED, exit_code=75)
    assert consumer.requeue(_claim(consumer, offer), count_attempt=True, attempt=attempt, pause_seconds=3600)
    assert records.get(job_id).state is State.DELAYED
    redis.zadd("rq:scheduled:default@-:-:-", {job_id: LONG_AGO})
    reaper.tick()
    assert _claim(consumer, offer).earlier == (attempt,)


def test_a_client_that_is_gone_takes_its_queued_job_along(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records
) -> None:
    """A queued job whose client has gone is cancelled, and its record says so."""
    job_id = producer.submit(JobSpec(), client_lease=True)
    reaper.tick()
    assert records.get(job_id).state is State.QUEUED
    redis.zadd("dayfly:clients", {job_id: LONG_AGO})
    assert producer.beat(job_id)
    reaper.tick()
    assert records.get(job_id).state is State.QUEUED
    redis.zadd("dayfly:clients", {job_id: LONG_AGO})
    reaper.tick()
    result = records.get(job_id).result
    assert (result.outcome, result.reason) == (Outcome.CANCELLED, CLIENT_LOST)
    assert not producer.beat(job_id)


def test_a_client_that_is_gone_cancels_its_running_job(
    redis: Redis, reaper: Reaper, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """The worker of a job whose client has gone is told, and why."""
    job_id = producer.submit(JobSpec(), client_lease=True)
    claim = _claim(consumer, offer)
    assert claim.client_lease
    assert consumer.cancel_reason(claim) is None
    redis.zadd("dayfly:clients", {job_id: LONG_AGO})
    reaper.tick()
    assert consumer.renew([claim]) == {job_id: Hold.CANCEL}
    assert consumer.cancel_reason(claim) == CLIENT_LOST


def test_a_job_without_a_client_lease_lives_on(producer: Producer, redis: Redis) -> None:
    """submit without a lease has none to lose."""
    job_id = producer.submit(JobSpec())
    assert not producer.beat(job_id)
    assert redis.zcard("dayfly:clients") == 0


def test_queue_timeout_ends_a_job_that_nobody_took(
    redis: Redis, reaper: Reaper, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A job that waited too long is timed out with that reason; one that was taken in time is not."""
    taken = producer.submit(JobSpec(queue_timeout_seconds=3600))
    late = producer.submit(JobSpec(queue_timeout_seconds=3600))
    _claim(consumer, offer)
    redis.zadd("dayfly:deadlines", {taken: LONG_AGO, late: LONG_AGO})
    reaper.tick()
    result = records.get(late).result
    assert (result.outcome, result.reason) == (Outcome.TIMED_OUT, QUEUE_TIMEOUT)
    assert records.get(taken).state is State.STARTING
    assert redis.zcard("dayfly:deadlines") == 0


def test_a_deleted_job_leaves_no_lease(
    redis: Redis, reaper: Reaper, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """A lease whose job was deleted by hand goes away."""
    job_id = producer.submit(JobSpec())
    claim = _claim(consumer, offer)
    redis.delete(f"rq:job:{job_id}")
    _expire(redis, claim)
    reaper.tick()
    left = {key.decode() for key in redis.keys("*") if claim.execution_id.encode() in key}
    assert left == set()
    assert redis.zcard("dayfly:leases") == redis.zcard(f"rq:wip:{claim.class_name}") == 0


def _claim(consumer: Consumer, free: Capacity) -> Claim:
    claim = consumer.claim(free)
    assert claim is not None
    return claim


def _expire(redis: Redis, claim: Claim) -> None:
    redis.zadd("dayfly:leases", {claim.member: LONG_AGO})
