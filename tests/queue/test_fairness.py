"""A large job does not wait for ever behind a stream of small ones."""

from __future__ import annotations

from collections.abc import Callable

from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec, Limits
from dayfly.queue.claims import Claim
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer

CPU = Capacity(1000, 100, 100)


class Host:
    """A worker with 4 cpus and what is free of them."""

    def __init__(self, consumer: Consumer, ended: Callable[..., Result]) -> None:
        self.consumer = consumer
        self.free = 4
        self.running: list[tuple[Claim, int]] = []
        self._ended = ended

    def fill(self) -> list[str]:
        """Claim until nothing more is given; the ids taken."""
        taken = []
        while (claim := self.consumer.claim(Capacity(self.free * 1000, 8192, 40960))) is not None:
            cpus = int(claim.document["limits"]["cpus"])
            self.free -= cpus
            assert self.free >= 0
            self.running.append((claim, cpus))
            taken.append(claim.job_id)
        return taken

    def finish_oldest(self) -> None:
        claim, cpus = self.running.pop(0)
        assert self.consumer.finish(claim, self._ended(claim))
        self.free += cpus


def test_a_refused_head_gets_the_host_to_itself(
    producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """On a host of 4 cpus, a job of 3 starts within one job's length of being first, however many small ones wait."""
    host = Host(make_consumer(patience_seconds=0), ended)
    first = [_submit(producer, cpus) for cpus in (1, 2)]
    big = _submit(producer, 3)
    small = [_submit(producer, 1) for _ in range(20)]
    assert host.fill() == first
    assert host.free == 1
    while big not in (taken := host.fill()):
        assert not taken, "a small job slipped past the one that waits for room"
        host.finish_oldest()
    assert taken[0] == big
    assert taken[1:] == small[: host.free + len(taken[1:])]


def test_a_higher_priority_is_not_held_up_by_a_reservation(
    producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """A worker that is kept free for a large job still takes what is ahead of it, and nothing behind it."""
    host = Host(make_consumer(patience_seconds=0), ended)
    first = [_submit(producer, cpus) for cpus in (1, 2)]
    big = _submit(producer, 3)
    assert host.fill() == first
    _submit(producer, 1)
    urgent = _submit(producer, 1, priority=10)
    assert host.fill() == [urgent]
    for _ in first:
        assert host.fill() == []
        host.finish_oldest()
    assert host.fill()[0] == big


def test_within_patience_small_jobs_fill_the_room(
    producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """A head that was only just refused holds nothing up."""
    host = Host(make_consumer(patience_seconds=60), ended)
    first = [_submit(producer, 2), _submit(producer, 1)]
    _submit(producer, 3)
    small = _submit(producer, 1)
    assert host.fill() == [*first, small]


def test_another_worker_may_take_the_reserved_job(
    redis: Redis, producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """A reservation keeps a worker free, it does not keep the job from others; then it is gone."""
    busy = Host(make_consumer("busy", patience_seconds=0), ended)
    first = _submit(producer, 2)
    big = _submit(producer, 3)
    assert busy.fill() == [first]
    idle = Host(make_consumer("idle", patience_seconds=0), ended)
    assert idle.fill() == [big]
    small = _submit(producer, 1)
    assert busy.fill() == [small]
    assert not redis.exists("dayfly:reserved")


def test_only_one_worker_is_kept_free_for_a_job(
    producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """A second worker goes on with small jobs while the first one empties."""
    one, two = (Host(make_consumer(name, patience_seconds=0), ended) for name in ("one", "two"))
    first = [_submit(producer, 2), _submit(producer, 2)]
    one.free = two.free = 2
    assert one.fill() == first[:1]
    assert two.fill() == first[1:]
    one.free = two.free = 1
    _submit(producer, 3)
    small = _submit(producer, 1)
    assert one.fill() == []
    assert two.fill() == [small]


def test_a_job_that_no_empty_host_could_hold_reserves_nothing(
    producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """A job of 16 cpus does not stop a host of 4."""
    host = Host(make_consumer(patience_seconds=0), ended)
    _submit(producer, 16)
    small = _submit(producer, 1)
    assert host.fill() == [small]


def test_a_reservation_runs_out(
    producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """When the time of a reservation is over the host takes other jobs again."""
    host = Host(make_consumer(patience_seconds=0, reservation_seconds=0), ended)
    host.free = 2
    _submit(producer, 3)
    small = _submit(producer, 1)
    assert host.fill() == []  # reserved, and over at once
    patient = Host(make_consumer(patience_seconds=60), ended)
    patient.free = 2
    assert patient.fill() == [small]


def test_a_cancelled_head_frees_its_host(
    producer: Producer, make_consumer: Callable[..., Consumer], ended: Callable[..., Result]
) -> None:
    """When the reserved job is cancelled its host goes on at once."""
    host = Host(make_consumer(patience_seconds=0), ended)
    host.free = 2
    big = _submit(producer, 3)
    small = _submit(producer, 1)
    assert host.fill() == []
    producer.cancel(big)
    assert host.fill() == [small]


def _submit(producer: Producer, cpus: int, priority: int = 0) -> str:
    limits = Limits(cpus=cpus, memory_bytes=1 << 20, disk_bytes=1 << 20)
    return producer.submit(JobSpec(limits=limits, priority=priority))


ODD = Capacity(4100, 102_400, 5000)  # between two steps of each


def test_a_job_that_asks_for_all_that_a_worker_offers_is_taken(
    producer: Producer, make_consumer: Callable[..., Consumer]
) -> None:
    """Its demand is rounded beyond what the worker has, and yet it fits: an empty worker takes it."""
    consumer = make_consumer(offer=ODD)
    job_id = producer.submit(_asking(ODD))
    assert consumer.claim(ODD - CPU) is None
    claim = consumer.claim(ODD)
    assert claim is not None
    assert claim.job_id == job_id
    assert consumer.claim(ODD) is None


def test_a_job_that_asks_for_more_than_a_worker_offers_is_not_taken_and_holds_nobody_up(
    producer: Producer, make_consumer: Callable[..., Consumer]
) -> None:
    """Of two jobs of one class, the one that exceeds the worker waits for another; the one behind it is taken."""
    consumer = make_consumer(offer=ODD, patience_seconds=0)
    larger = producer.submit(_asking(ODD + Capacity(0, 1, 0)))
    fitting = producer.submit(_asking(ODD))
    claim = consumer.claim(ODD)
    assert claim is not None
    assert claim.job_id == fitting
    assert consumer.claim(ODD) is None
    other = make_consumer("w2", offer=ODD + Capacity(0, 1, 0)).claim(ODD + Capacity(0, 1, 0))
    assert other is not None
    assert other.job_id == larger


def test_a_worker_is_kept_free_for_a_job_that_asks_for_all_of_it(
    producer: Producer, make_consumer: Callable[..., Consumer]
) -> None:
    """While the worker is not empty it takes nothing that came later, so that it will be."""
    consumer = make_consumer(offer=ODD, patience_seconds=0)
    whole = producer.submit(_asking(ODD))
    _submit(producer, 1)
    assert consumer.claim(ODD - CPU) is None
    claim = consumer.claim(ODD)
    assert claim is not None
    assert claim.job_id == whole


def _asking(amount: Capacity) -> JobSpec:
    limits = Limits(
        cpus=amount.cpus_milli / 1000, memory_bytes=amount.memory_mib << 20, disk_bytes=amount.disk_mib << 20
    )
    return JobSpec(command=("true",), limits=limits)
