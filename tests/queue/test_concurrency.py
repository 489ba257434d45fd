"""Many workers at once: no job lost, none twice, whoever dies."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable

from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.spec import JobSpec, Limits
from dayfly.jobs.state import Outcome
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer
from dayfly.queue.reaper import Reaper
from dayfly.queue.records import Records

DEADLINE_SECONDS = 60.0

# A worker that takes all it can get and says what it took; it dies by SIGKILL with its nth job in its hands.
WORKER = """
import os, signal, sys
from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result, Timings
from dayfly.jobs.state import Outcome, State
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer

url, name, die_after = sys.argv[1], sys.argv[2], int(sys.argv[3])
offer = Capacity(4000, 8192, 40960)
consumer = Consumer(connect(url), name, ["default"], "h", {}, offer=offer, share=offer.share(4))
claim = consumer.claim(offer)
while claim is not None:
    if die_after == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    die_after -= 1
    print(claim.job_id, flush=True)
    timings = Timings(started_at=1.0, finished_at=1.0)
    result = Result(id=claim.job_id, state=State.FINISHED, outcome=Outcome.SUCCEEDED, exit_code=0, timings=timings)
    finished, claim = consumer.turn(claim, result, offer)
    assert finished
"""


def test_every_job_is_run_once(valkey: str, redis: Redis, producer: Producer, records: Records) -> None:
    """Four processes on 2,000 jobs of eight classes: each job claimed once, each finished."""
    ids = producer.submit_many(
        JobSpec(limits=Limits(cpus=1 + number % 4), priority=number % 2) for number in range(2000)
    )
    claimed = _run(valkey, [-1] * 4)
    assert Counter(claimed) == Counter(ids)
    found = records.get_many(ids)
    assert all(record is not None and record.outcome is Outcome.SUCCEEDED for record in found)
    assert redis.zcard("dayfly:index:default") == 0
    assert redis.zcard("dayfly:leases") == 0
    assert sum(redis.zcard(key) for key in redis.keys("rq:wip:*")) == 0
    assert sum(redis.zcard(key) for key in redis.keys("rq:finished:*")) == 2000


def test_jobs_of_killed_workers_are_run_by_others(
    valkey: str, redis: Redis, producer: Producer, records: Records
) -> None:
    """Workers killed with a job in their hands: the reaper gives it back, and all jobs end once, in success."""
    ids = producer.submit_many(JobSpec() for _ in range(300))
    for after in (5, 30, 0, -1):  # one after the other, or the one that lives takes all
        _run(valkey, [after])
    held = [member.decode() for member in redis.zrange("dayfly:leases", 0, -1)]
    assert len(held) == 3
    reaper = Reaper(redis, ["default"], lease_seconds=30)
    reaper.tick()
    redis.hset("dayfly:redis", "since", 1)
    redis.zadd("dayfly:leases", dict.fromkeys(held, 1))
    reaper.tick()
    assert sorted(_run(valkey, [-1])) == sorted(member.partition(":")[0] for member in held)
    found = records.get_many(ids)
    assert all(record is not None and record.outcome is Outcome.SUCCEEDED for record in found)
    assert all(redis.xlen(f"rq:results:{job_id}") == 1 for job_id in ids)
    attempts = Counter(record.attempt for record in found if record is not None)
    assert attempts == {1: 297, 2: 3}


def test_producers_and_workers_at_once(
    valkey: str, producer: Producer, make_consumer: Callable[..., Consumer], offer: Capacity
) -> None:
    """Jobs that are submitted while workers claim are found: the index is never behind the lists."""
    consumer = make_consumer()
    claimed = []
    ids = []
    for number in range(200):
        ids.append(producer.submit(JobSpec(priority=number % 3)))
        claim = consumer.claim(offer)
        assert claim is not None
        claimed.append(claim.job_id)
    assert claimed == ids
    assert consumer.claim(offer) is None


def _run(url: str, die_after: list[int]) -> list[str]:
    """The ids that workers have told of, one worker for each entry of `die_after` (-1: it lives)."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, f"p{number}", str(after)], stdout=subprocess.PIPE, text=True
        )
        for number, after in enumerate(die_after)
    ]
    try:
        told = [worker.communicate(timeout=DEADLINE_SECONDS)[0].split() for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert [worker.returncode for worker in workers] == [0 if after < 0 else -9 for after in die_after]
    return [job_id for each in told for job_id in each]
