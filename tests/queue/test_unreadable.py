"""Jobs whose payload is none of ours, or more than it may be: never an empty job that succeeds."""

from __future__ import annotations

import zlib

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer

from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import QueueError, SpecError
from dayfly.jobs.spec import JobSpec
from dayfly.queue import keys
from dayfly.queue.consumer import Consumer
from dayfly.queue.foreign import Intake
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records

_MIB = 1 << 20


def test_a_claim_says_why_its_payload_cannot_be_read(
    redis: Redis, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """The worker hears why there is no document, at the claim and when it asks again what it holds."""
    job_id = producer.submit(JobSpec(command=("true",)))
    redis.hset(keys.job(job_id), "data", zlib.compress(b"nothing of ours"))
    claim = consumer.claim(offer)
    assert claim is not None
    assert (claim.document, claim.refusal) == ({}, "its payload is not JSON")
    assert [each.refusal for each in consumer.executions()] == ["its payload is not JSON"]


def test_what_the_door_lets_in_can_be_read_on_the_other_side(
    producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """A document of nearly 4 MiB that JSON could write with escapes, three times as long, reaches the worker whole."""
    spec = read_job({"command": "x", "annotations": dict.fromkeys("abcd", "é" * (_MIB // 2 - 100))})
    producer.submit(spec)
    claim = consumer.claim(offer)
    assert claim is not None
    assert claim.refusal is None
    assert claim.document == spec.to_document()


def test_rqs_own_serializer_reads_our_payload(redis: Redis, producer: Producer) -> None:
    """Tools of RQ's that know its JSON serializer see function and document."""
    job_id = producer.submit(JobSpec(command=("é",)))
    job = Job.fetch(job_id, connection=redis, serializer=JSONSerializer)
    assert (job.func_name, job.args) == ("dayfly.execute", [{"version": 1, "command": ["é"]}])


@pytest.mark.parametrize(
    ("function", "document", "reason"), [("os.system", "true", "os.system"), ("dayfly.execute", {"zzz": 1}, "zzz")]
)
def test_what_was_refused_cannot_be_retried(
    redis: Redis, producer: Producer, function: str, document: object, reason: str
) -> None:
    """`dayfly retry` of a parked job of somebody else's is an error that says why, not an empty job."""
    job = Queue("default", connection=redis, serializer=JSONSerializer).enqueue(function, document)
    Intake(redis).take("default")
    with pytest.raises(QueueError, match=reason):
        producer.retry(job.id)
    assert len(Records(redis).ls()) == 1


def test_what_cannot_be_read_cannot_be_retried(redis: Redis, producer: Producer) -> None:
    """A job whose payload was damaged after its end is not submitted again as an empty one."""
    job_id = producer.submit(JobSpec(command=("true",)))
    producer.cancel(job_id)
    redis.hset(keys.job(job_id), "data", b"garbage")
    with pytest.raises(SpecError, match="its payload is not JSON"):
        producer.retry(job_id)
