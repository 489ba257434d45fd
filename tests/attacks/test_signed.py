"""Q1: what a thief of Redis makes of signed jobs. The control: the same claim where no key is trusted."""

from __future__ import annotations

import time
from typing import Any

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import QueueError
from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.result import Result, Timings
from dayfly.jobs.signatures import Signing, SigningKey, TrustedKeys
from dayfly.jobs.state import Outcome, State
from dayfly.queue.consumer import Consumer
from dayfly.queue.payload import Serializer
from dayfly.queue.producer import Producer
from dayfly.worker.starting import Rejected, check

OFFER = Capacity(4000, 8192, 40960)
DOCUMENT = {"image": "host", "command": ["make"]}
KEY = generate(KeyKind.ED25519)
TRUSTED = TrustedKeys([KEY.public()])


@pytest.fixture
def signer(redis: Redis) -> Producer:
    return Producer(redis, lambda: Signing(SigningKey(KEY), TRUSTED))


def _altered(redis: Redis, job_id: str, document: dict[str, Any]) -> None:
    redis.hset(f"rq:job:{job_id}", "data", Serializer.dumps(["dayfly.execute", None, [document], {}]))


def _exchange_signature(redis: Redis, job_id: str) -> None:
    other = Producer(redis, lambda: Signing(SigningKey(KEY), TRUSTED)).submit(read_job({**DOCUMENT, "priority": -9}))
    redis.hset(f"rq:job:{job_id}", "dayfly_signature", redis.hget(f"rq:job:{other}", "dayfly_signature"))


def _sign_oneself(redis: Redis, job_id: str) -> None:
    forged = SigningKey(generate(KeyKind.ED25519)).sign_job(job_id, "default", DOCUMENT)
    redis.hset(f"rq:job:{job_id}", "dayfly_signature", forged)


def _move_to_another_queue(redis: Redis, job_id: str) -> None:
    (name,) = redis.keys("rq:queue:default@*")
    redis.delete(name, "dayfly:index:default")
    moved = name.decode().removeprefix("rq:queue:").replace("default@", "deploy@")
    redis.hset(f"rq:job:{job_id}", "origin", moved)
    redis.rpush(f"rq:queue:{moved}", job_id)
    redis.zadd("dayfly:index:deploy", {moved: 1})


def _replay_under_another_id(redis: Redis, job_id: str) -> None:
    (name,) = redis.keys("rq:queue:default@*")
    redis.rename(f"rq:job:{job_id}", "rq:job:01JXREPLAYREPLAYREPLAYREPL")
    redis.delete(name)
    redis.rpush(name, "01JXREPLAYREPLAYREPLAYREPL")


@pytest.mark.parametrize(
    "attack",
    [
        lambda redis, job_id: _altered(redis, job_id, {**DOCUMENT, "version": 1, "command": ["sh", "-c", "id"]}),
        lambda redis, job_id: _altered(redis, job_id, {**DOCUMENT, "version": 1, "user": "root"}),
        lambda redis, job_id: _altered(redis, job_id, {**DOCUMENT, "version": 1, "network": "host"}),
        lambda redis, job_id: redis.hdel(f"rq:job:{job_id}", "dayfly_signature"),
        _exchange_signature,
        _sign_oneself,
        _move_to_another_queue,
        _replay_under_another_id,
    ],
    ids=["command", "user", "network", "unsigned", "exchanged", "own key", "other queue", "other id"],
)
def test_q1_a_thief_of_redis_runs_nothing_that_was_not_signed(
    tally: Any, redis: Redis, signer: Producer, consumer: Consumer, attack: Any
) -> None:
    """Everything that says what runs where is signed; without trusted keys the same document is run."""
    job_id = signer.submit(read_job(DOCUMENT))
    attack(redis, job_id)
    claim = consumer.claim(OFFER)
    assert claim is not None
    with pytest.raises(Rejected) as rejected:
        check(claim, TRUSTED)
    bit = check(claim) is not None
    tally.judge(held=rejected.value.word == "untrusted", bit=bit, seen=rejected.value)


def test_q1_a_signed_job_ends(
    tally: Any, redis: Redis, signer: Producer, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same job put back under its own id is run again, as attempts are, but not for ever."""
    signer.submit(read_job(DOCUMENT))
    claim = consumer.claim(OFFER)
    assert claim is not None
    bit = check(claim, TRUSTED) is not None
    later = time.time() + 8 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(Rejected) as rejected:
        check(claim, TRUSTED)
    tally.judge(held="ended" in str(rejected.value), bit=bit, seen=rejected.value)


def test_q1_retry_signs_nothing_for_a_thief(
    tally: Any, redis: Redis, signer: Producer, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document of a finished job is altered in Redis, and somebody who may sign retries the job."""
    job_id = signer.submit(read_job(DOCUMENT))
    claim = consumer.claim(OFFER)
    assert claim is not None
    consumer.finish(claim, _ended(claim, Outcome.FAILED))
    _altered(redis, job_id, {"command": ["sh", "-c", "id"]})
    with pytest.raises(QueueError) as refused:
        signer.retry(job_id)
    monkeypatch.setattr(Producer, "_check_signed", lambda own, record: None)
    signer.retry(job_id)
    again = consumer.claim(OFFER)
    assert again is not None
    bit = check(again, TRUSTED).command == ("sh", "-c", "id")
    tally.judge(held="altered" in str(refused.value), bit=bit, seen=refused.value)


def _ended(claim: Any, outcome: Outcome = Outcome.SUCCEEDED) -> Result:
    times = Timings(queued_at=1.0, claimed_at=1.0, started_at=1.0, finished_at=2.0)
    return Result(id=claim.job_id, state=State.FINISHED, outcome=outcome, queue=claim.queue, timings=times)
