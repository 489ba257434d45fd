"""Which job a worker gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result
from dayfly.jobs.spec import Directory, JobSpec, Limits
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer

MIB = 1 << 20


def test_nothing_is_claimed_from_an_empty_queue(consumer: Consumer, offer: Capacity) -> None:
    """An empty queue gives no claim."""
    assert consumer.claim(offer) is None


def test_nothing_is_claimed_without_a_slot(producer: Producer, consumer: Consumer) -> None:
    """A worker whose slots are all taken takes nothing, whatever it has free."""
    producer.submit(JobSpec(command=("true",)))
    assert consumer.claim(None) is None


def test_a_claim_carries_the_document(producer: Producer, consumer: Consumer, offer: Capacity) -> None:
    """What was submitted is what the worker gets."""
    spec = JobSpec(name="unit", command=("make", "-j2"), limits=Limits(cpus=1.5), env={"A": "é\n"})
    job_id = producer.submit(spec)
    claim = consumer.claim(offer)
    assert claim is not None
    assert (claim.job_id, claim.attempt, claim.queue, claim.client_lease) == (job_id, 1, "default", False)
    assert claim.document == spec.to_document()
    assert claim.enqueued_at <= claim.claimed_at


def test_the_oldest_job_comes_first_across_classes(producer: Producer, consumer: Consumer, offer: Capacity) -> None:
    """Jobs of different demands are claimed in the order of their submission."""
    sizes = (1.0, 2.0, 1.0, 0.5, 2.0, 0.5)
    ids = [producer.submit(JobSpec(limits=Limits(cpus=cpus))) for cpus in sizes]
    assert _claim_all(consumer, offer) == ids


def test_a_higher_priority_comes_first(producer: Producer, consumer: Consumer, offer: Capacity) -> None:
    """Priority decides before age."""
    ids = {priority: producer.submit(JobSpec(priority=priority)) for priority in (0, -100, 10, 100, -1)}
    assert _claim_all(consumer, offer) == [ids[priority] for priority in (100, 10, 0, -1, -100)]


def test_queues_are_served_in_the_order_given(
    producer: Producer, make_consumer: Callable[..., Consumer], offer: Capacity
) -> None:
    """A worker of two queues empties the first before it looks at the second, as RQ's workers do."""
    late = producer.submit(JobSpec(queue="second"))
    early = producer.submit(JobSpec(queue="first"))
    producer.submit(JobSpec(queue="other"))
    assert _claim_all(make_consumer(queues=["first", "second"]), offer) == [early, late]


@pytest.mark.parametrize(
    ("limits", "free", "fits"),
    [
        (Limits(cpus=2), Capacity(2000, 8192, 40960), True),
        (Limits(cpus=2), Capacity(1999, 8192, 40960), False),
        (Limits(memory_bytes=1024 * MIB), Capacity(4000, 1024, 40960), True),
        (Limits(memory_bytes=1024 * MIB), Capacity(4000, 1023, 40960), False),
        (Limits(disk_bytes=1024 * MIB), Capacity(4000, 8192, 1024), True),
        (Limits(disk_bytes=1024 * MIB), Capacity(4000, 8192, 1023), False),
        (Limits(), Capacity(1000, 2048, 10240), True),
        (Limits(), Capacity(999, 8192, 40960), False),
        (Limits(), Capacity(4000, 2047, 40960), False),
    ],
)
def test_only_what_fits_is_claimed(
    producer: Producer, consumer: Consumer, limits: Limits, free: Capacity, fits: bool
) -> None:
    """A job is taken exactly when its demands, or a slot's share for those not stated, are free."""
    producer.submit(JobSpec(limits=limits))
    assert (consumer.claim(free) is not None) == fits


def test_labels_and_host_are_required(
    producer: Producer, make_consumer: Callable[..., Consumer], offer: Capacity
) -> None:
    """A job goes only to a worker that has its labels, and a live directory only to its host."""
    labelled = producer.submit(JobSpec(labels={"disk": "nvme", "zone": "a b~,:="}))
    bare = producer.submit(JobSpec(labels={"gpu": ""}))
    live = producer.submit(JobSpec(dir=Directory(path="/src", host="build-é:7")))
    assert make_consumer("none").claim(offer) is None
    assert make_consumer("half", labels={"disk": "nvme", "zone": "b"}).claim(offer) is None
    assert _claim_all(make_consumer("full", labels={"disk": "nvme", "zone": "a b~,:=", "x": "y"}), offer) == [labelled]
    assert _claim_all(make_consumer("gpu", labels={"gpu": ""}), offer) == [bare]
    assert _claim_all(make_consumer("host", host_id="build-é:7"), offer) == [live]


def test_a_thousand_large_jobs_do_not_hide_small_ones(
    producer: Producer, consumer: Consumer, ended: Callable[..., Result]
) -> None:
    """Two hundred small jobs behind a thousand that do not fit are all found."""
    producer.submit_many(JobSpec(limits=Limits(cpus=16)) for _ in range(1000))
    small = producer.submit_many(JobSpec(limits=Limits(cpus=1)) for _ in range(200))
    found = []
    for _ in small:
        claim = consumer.claim(Capacity(1000, 2048, 10240))
        assert claim is not None
        found.append(claim.job_id)
        assert consumer.finish(claim, ended(claim))
    assert found == small
    assert consumer.claim(Capacity(1000, 2048, 10240)) is None


def test_ids_that_are_no_queued_job_are_passed_over(
    redis: Redis, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """A deleted, expired or moved job in a list costs nothing but its place there."""
    ids = [producer.submit(JobSpec()) for _ in range(3)]
    redis.delete(f"rq:job:{ids[0]}")
    redis.hset(f"rq:job:{ids[1]}", "status", "canceled")
    assert _claim_all(consumer, offer) == [ids[2]]


def test_a_server_that_forgot_the_scripts_gets_them_again(
    redis: Redis, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """After SCRIPT FLUSH (a restart, a failover) submission and claim go on."""
    first = producer.submit(JobSpec())
    redis.script_flush()
    second = producer.submit(JobSpec())
    redis.script_flush()
    assert _claim_all(consumer, offer) == [first, second]


def _claim_all(consumer: Consumer, free: Capacity) -> list[str]:
    ids = []
    while (claim := consumer.claim(free)) is not None:
        ids.append(claim.job_id)
    return ids
