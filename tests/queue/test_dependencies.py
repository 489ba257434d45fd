"""Jobs that run after others, jobs that wait for their time, and jobs that are there only once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from dayfly.jobs.demand import Capacity
from dayfly.jobs.errors import AmbiguousId, DuplicateJob, JobNotFound, QueueError
from dayfly.jobs.result import Result
from dayfly.jobs.spec import After, AfterWhen, JobSpec
from dayfly.jobs.state import Outcome, State
from dayfly.queue.claims import Claim
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer
from dayfly.queue.reaper import Reaper
from dayfly.queue.records import Records
from dayfly.queue.upkeep import keep_up

LONG_AGO = 1.0
CLASS = "default@-:-:-"
UNSUCCESSFUL = [outcome for outcome in Outcome if outcome is not Outcome.SUCCEEDED]


def test_a_job_waits_for_those_before_it(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """A job is claimed only once all that it runs after have succeeded."""
    first, second = producer.submit(JobSpec()), producer.submit(JobSpec())
    last = producer.submit(JobSpec(after=After((first, second))))
    claims = [_claim(consumer, offer), _claim(consumer, offer)]
    for claim in claims:
        assert records.get(last).state is State.WAITING
        assert consumer.claim(offer) is None
        consumer.finish(claim, ended(claim))
    assert _claim(consumer, offer).job_id == last


@pytest.mark.parametrize("outcome", UNSUCCESSFUL)
def test_ok_wants_success(
    producer: Producer,
    records: Records,
    consumer: Consumer,
    offer: Capacity,
    ended: Callable[..., Result],
    outcome: Outcome,
) -> None:
    """After anything but success the job, and what waits for it, is cancelled with the reason."""
    first = producer.submit(JobSpec())
    second = producer.submit(JobSpec(after=After((first,))))
    third = producer.submit(JobSpec(after=After((second,))))
    claim = _claim(consumer, offer)
    consumer.finish(claim, ended(claim, outcome))
    for job_id, parent in ((second, first), (third, second)):
        result = records.get(job_id).result
        assert (result.outcome, result.reason) == (Outcome.CANCELLED, "dependency_failed")
        assert parent in str(result.message)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_any_wants_an_end(
    producer: Producer, consumer: Consumer, offer: Capacity, ended: Callable[..., Result], outcome: Outcome
) -> None:
    """With `any` the job runs after every end of the one before it, a cancel included."""
    first = producer.submit(JobSpec())
    second = producer.submit(JobSpec(after=After((first,), AfterWhen.ANY)))
    claim = _claim(consumer, offer)
    consumer.finish(claim, ended(claim, outcome))
    assert _claim(consumer, offer).job_id == second


def test_a_job_after_finished_ones_is_queued_at_once(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """What is already over is not waited for, whichever way it ended."""
    done, failed, cancelled = (producer.submit(JobSpec()) for _ in range(3))
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
        claim = _claim(consumer, offer)
        consumer.finish(claim, ended(claim, outcome))
    producer.cancel(cancelled)
    queued = producer.submit(JobSpec(after=After((done,))))
    anyway = producer.submit(JobSpec(after=After((failed, cancelled), AfterWhen.ANY)))
    never = producer.submit(JobSpec(after=After((done, failed))))
    assert [_claim(consumer, offer).job_id for _ in range(2)] == [queued, anyway]
    assert records.get(never).outcome is Outcome.CANCELLED


def test_an_end_during_the_submission_is_not_missed(
    valkey: str, producer: Producer, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """Whichever comes first, the end of a job or the submission of one to run after it: the second is released."""
    with contextlib.closing(connect(valkey)) as other, ThreadPoolExecutor(1) as thread:
        for _ in range(100):
            first = producer.submit(JobSpec())
            claim = _claim(consumer, offer)
            submission = thread.submit(Producer(other).submit, JobSpec(after=After((first,))))
            assert consumer.finish(claim, ended(claim))
            second = submission.result(timeout=20)
            again = _claim(consumer, offer)
            assert again.job_id == second
            assert consumer.finish(again, ended(again))


def test_prefixes_of_ids_are_resolved(producer: Producer, records: Records) -> None:
    """`after` takes unique prefixes; one that is unknown or ambiguous is refused before anything is enqueued."""
    first = producer.submit(JobSpec())
    second = producer.submit(JobSpec())
    waiting = producer.submit(JobSpec(after=After((second[:25],))))
    assert records.get(waiting).state is State.WAITING
    lower = producer.submit(JobSpec(after=After((second.lower(),))))
    assert records.get(lower).state is State.WAITING
    with pytest.raises(JobNotFound):
        producer.submit(JobSpec(after=After(("7ZZZ",))))
    with pytest.raises(AmbiguousId):
        producer.submit(JobSpec(after=After((first[:1],))))
    assert len(records.ls()) == 4


def test_a_dead_finisher_leaves_nobody_waiting(
    redis: Redis,
    producer: Producer,
    records: Records,
    consumer: Consumer,
    offer: Capacity,
    ended: Callable[..., Result],
) -> None:
    """When the worker died right after a finish, upkeep releases what waited for it, or ends it."""
    from dayfly.queue import scripts, transitions

    first = producer.submit(JobSpec())
    good = producer.submit(JobSpec(after=After((first,))))
    claim = _claim(consumer, offer)
    assert scripts.FINISH(redis, *transitions.finish_arguments(claim, ended(claim))) == 1  # and no settle()
    assert records.get(good).state is State.WAITING
    keep_up(redis, [CLASS], ["default"])
    assert _claim(consumer, offer).job_id == good


def test_a_job_of_rq_can_wait_for_ours(
    redis: Redis, producer: Producer, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """A plain RQ job that depends on one of ours is enqueued by RQ's own code when ours ends."""
    first = producer.submit(JobSpec())
    other = Queue("python", connection=redis, serializer=JSONSerializer)
    waiting = other.enqueue("operator.add", 1, 2, depends_on=first)
    assert other.job_ids == []
    claim = _claim(consumer, offer)
    consumer.finish(claim, ended(claim))
    assert other.job_ids == [waiting.id]


def test_ours_can_wait_for_a_job_of_rq(
    redis: Redis, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A job of ours that runs after a plain RQ job is released by RQ's worker, and found."""
    other = Queue("python", connection=redis, serializer=JSONSerializer)
    first = other.enqueue("operator.add", 1, 2)
    waiting = producer.submit(JobSpec(after=After((first.id,))))
    assert records.get(waiting).state is State.WAITING
    worker = SimpleWorker([other], connection=redis, serializer=JSONSerializer)
    worker.register_birth()
    found = worker.dequeue_job_and_maintain_ttl(timeout=None)
    assert found is not None
    worker.execute_job(*found)
    keep_up(redis, [CLASS], ["default"])
    assert _claim(consumer, offer).job_id == waiting


def test_a_delayed_job_waits_for_its_time(
    redis: Redis, producer: Producer, records: Records, consumer: Consumer, offer: Capacity
) -> None:
    """A delay is kept by the server's clock in RQ's registry, and over when it is over."""
    job_id = producer.submit(JobSpec(delay_seconds=3600.5))
    assert records.get(job_id).state is State.DELAYED
    seconds, micros = redis.time()
    score = redis.zscore(f"rq:scheduled:{CLASS}", job_id)
    assert score is not None
    assert score - (seconds + micros / 1e6) == pytest.approx(3600.5, abs=5)
    reaper = Reaper(redis, ["default"], lease_seconds=30)
    reaper.tick()
    assert consumer.claim(offer) is None
    redis.zadd(f"rq:scheduled:{CLASS}", {job_id: LONG_AGO})
    reaper.tick()
    assert _claim(consumer, offer).job_id == job_id


def test_delay_and_after_hold_together(
    redis: Redis,
    producer: Producer,
    records: Records,
    consumer: Consumer,
    offer: Capacity,
    ended: Callable[..., Result],
) -> None:
    """A job with both is delayed still when what it waits for has ended, before or after its submission."""
    first = producer.submit(JobSpec())
    before = producer.submit(JobSpec(after=After((first,)), delay_seconds=3600))
    claim = _claim(consumer, offer)
    consumer.finish(claim, ended(claim))
    later = producer.submit(JobSpec(after=After((first,)), delay_seconds=3600))
    assert {records.get(job_id).state for job_id in (before, later)} == {State.DELAYED}
    assert redis.zcard(f"rq:scheduled:{CLASS}") == 2
    assert consumer.claim(offer) is None


def test_a_unique_key_is_refused_while_a_job_has_it(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """While a job with the key is not finished another one is refused with its id; then the key is free."""
    spec = JobSpec(unique="deploy-main")
    first = producer.submit(spec)
    for submit in (producer.submit, lambda spec: producer.submit_many([JobSpec(unique="other"), spec])):
        with pytest.raises(DuplicateJob, match=f"job {first} already has .*`dayfly attach {first}` follows it"):
            submit(spec)
    claim = _claim(consumer, offer)
    with pytest.raises(DuplicateJob):
        producer.submit(spec)
    consumer.finish(claim, ended(claim))
    second = producer.submit(spec)
    assert second != first
    producer.cancel(second)
    assert producer.submit(spec) not in (first, second)
    assert len(records.ls()) == 4


def test_retry_submits_the_document_again(
    producer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """retry() makes a new job of a finished one, and refuses one that is not finished."""
    spec = JobSpec(name="unit", command=("make",), queue="default")
    first = producer.submit(spec)
    with pytest.raises(QueueError, match="is queued"):
        producer.retry(first)
    claim = _claim(consumer, offer)
    consumer.finish(claim, ended(claim, Outcome.FAILED))
    second = producer.retry(first)
    record = records.get(second)
    assert (record.spec, record.retry_of, record.attempt) == (spec, first, 0)
    assert _claim(consumer, offer).job_id == second


def _claim(consumer: Consumer, free: Capacity) -> Claim:
    claim = consumer.claim(free)
    assert claim is not None
    return claim
