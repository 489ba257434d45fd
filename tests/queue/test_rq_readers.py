"""RQ's own classes and command read everything of ours, and harm nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, Worker
from rq.command import send_stop_job_command
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry, clean_registries
from rq.results import Result as RQResult
from rq.serializers import JSONSerializer

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec, Limits
from dayfly.jobs.state import Outcome, State
from dayfly.queue.claims import Claim
from dayfly.queue.consumer import Consumer, Hold
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records


@pytest.fixture
def running(producer: Producer, consumer: Consumer, offer: Capacity) -> Claim:
    producer.submit(JobSpec(name="unit", timeout_seconds=1.0))
    claim = consumer.claim(offer)
    assert claim is not None
    return claim


def test_readers_leave_a_job_alone_whose_lease_has_passed(
    redis: Redis, valkey: str, consumer: Consumer, running: Claim, ended: Callable[..., Result]
) -> None:
    """`rq info`, registry.count and RQ's clean-up do nothing to a running job, whatever its lease and timeout."""
    redis.zadd("dayfly:leases", {running.member: 1})
    before = redis.hgetall(f"rq:job:{running.job_id}")
    for options in ((), ("--by-queue",), ("--only-workers",)):
        assert _rq_info(valkey, *options)
    queue = Queue(running.class_name, connection=redis, serializer=JSONSerializer)
    registry = StartedJobRegistry(queue=queue)
    assert registry.count == 1
    clean_registries(queue)
    assert registry.get_job_ids() == [running.job_id]
    assert redis.hgetall(f"rq:job:{running.job_id}") == before
    assert consumer.finish(running, ended(running))


def test_rq_info_shows_class_worker_and_job(valkey: str, producer: Producer, running: Claim) -> None:
    """`rq info` names the demand class, the worker as busy, and counts."""
    producer.submit(JobSpec(limits=Limits(cpus=2)))
    shown = _rq_info(valkey)
    assert "default@2000:-:- | 1" in shown.replace("█", "").replace("  ", " ")
    assert "default@-:-:-" in shown
    assert "1 workers, 3 queues" in shown
    assert "w1" in shown


def test_job_reads_a_running_job(redis: Redis, running: Claim) -> None:
    """Job gives status, worker, times, function and executions of a running job."""
    job = _job(redis, running.job_id)
    assert job.get_status() == JobStatus.STARTED
    assert job.worker_name == "w1"
    assert job.description == "unit"
    assert job.func_name == "dayfly.execute"
    assert job.args == [running.document]
    assert job.timeout == 1
    assert job.started_at is not None
    assert job.started_at.timestamp() == pytest.approx(running.claimed_at, abs=1e-3)
    assert [each.id for each in job.get_executions()] == [running.execution_id]


def test_job_reads_a_success(redis: Redis, consumer: Consumer, running: Claim, ended: Callable[..., Result]) -> None:
    """Job.return_value, ended_at and the registry of finished jobs tell of a job that succeeded."""
    assert consumer.finish(running, ended(running))
    job = _job(redis, running.job_id)
    assert job.is_finished
    assert job.return_value() == {
        "id": running.job_id,
        "outcome": "succeeded",
        "exit_code": 0,
        "run_seconds": 1.5,
        "artifacts": 0,
    }
    assert job.ended_at is not None
    queue = Queue(running.class_name, connection=redis, serializer=JSONSerializer)
    assert FinishedJobRegistry(queue=queue).get_job_ids() == [running.job_id]
    assert StartedJobRegistry(queue=queue).count == 0
    assert job.get_executions() == []


def test_job_reads_a_failure(redis: Redis, consumer: Consumer, running: Claim, ended: Callable[..., Result]) -> None:
    """Job.latest_result tells the reason of a job that failed."""
    assert consumer.finish(running, ended(running, Outcome.FAILED, exit_code=3))
    job = _job(redis, running.job_id)
    assert job.is_failed
    result = job.latest_result()
    assert result is not None
    assert result.type is RQResult.Type.FAILED
    assert result.exc_string == "failed with exit code 3"
    assert result.execution_id == running.execution_id
    queue = Queue(running.class_name, connection=redis, serializer=JSONSerializer)
    assert FailedJobRegistry(queue=queue).get_job_ids() == [running.job_id]


def test_worker_reads_our_worker(
    redis: Redis, consumer: Consumer, running: Claim, ended: Callable[..., Result]
) -> None:
    """Worker.all gives our worker with its state, executions and counters."""
    (worker,) = Worker.all(connection=redis)
    assert (worker.name, worker.get_state(), worker.queue_names()) == ("w1", "busy", ["default"])
    assert [each.job_id for each in worker.get_current_executions()] == [running.job_id]
    consumer.finish(running, ended(running))
    consumer.heartbeat()
    (worker,) = Worker.all(connection=redis)
    assert (worker.get_state(), worker.successful_job_count, worker.failed_job_count) == ("idle", 1, 0)
    assert worker.total_working_time == 1.5
    assert worker.current_execution_count == 0
    consumer.unregister()
    assert Worker.all(connection=redis) == []


def test_a_worker_of_a_name_registers_again(redis: Redis, make_consumer: Callable[..., Consumer]) -> None:
    """After a SIGKILL the same name is taken over at once, its counters go on."""
    make_consumer("same")
    redis.hset("rq:worker:same", "failed_job_count", 3)
    make_consumer("same")
    (worker,) = Worker.all(connection=redis)
    assert worker.failed_job_count == 3


def test_a_lost_worker_record_comes_back(redis: Redis, consumer: Consumer) -> None:
    """A record that Redis has lost is written again by the next heartbeat."""
    redis.flushall()
    consumer.heartbeat()
    (worker,) = Worker.all(connection=redis)
    assert worker.name == "w1"


def test_a_requeue_by_rq_is_found(
    redis: Redis, records: Records, consumer: Consumer, offer: Capacity, running: Claim, ended: Callable[..., Result]
) -> None:
    """`rq requeue` puts a failed job back, and a worker claims it as a further attempt."""
    from dayfly.queue.upkeep import keep_up

    assert consumer.finish(running, ended(running, Outcome.FAILED))
    _job(redis, running.job_id).requeue()
    assert records.get(running.job_id).state is State.QUEUED
    keep_up(redis, [running.class_name], ["default"])
    again = consumer.claim(offer)
    assert again is not None
    assert (again.job_id, again.attempt) == (running.job_id, 2)
    assert redis.ttl(f"rq:job:{running.job_id}") == -1
    assert records.get(running.job_id).outcome is None


def test_a_cancel_by_rq_is_believed(
    redis: Redis, records: Records, consumer: Consumer, running: Claim, ended: Callable[..., Result]
) -> None:
    """Job.cancel of a running job takes it from its worker: the lease is lost, the finish refused."""
    _job(redis, running.job_id).cancel()
    assert consumer.renew([running]) == {running.job_id: Hold.LOST}
    assert not consumer.finish(running, ended(running))
    assert records.get(running.job_id).outcome is Outcome.CANCELLED


def test_the_stop_command_of_rq_names_our_worker(redis: Redis, running: Claim) -> None:
    """send_stop_job_command finds the worker by the job's hash (wakeup.py obeys it)."""
    with redis.pubsub() as pubsub:
        pubsub.subscribe("rq:pubsub:w1")
        assert pubsub.get_message(timeout=5) is not None
        send_stop_job_command(redis, running.job_id, serializer=JSONSerializer)
        message = pubsub.get_message(timeout=5)
    assert message is not None
    assert b"stop-job" in message["data"]


def _job(redis: Redis, job_id: str) -> Job:
    return Job.fetch(job_id, connection=redis, serializer=JSONSerializer)


def _rq_info(url: str, *options: str) -> str:
    command = [str(Path(sys.executable).with_name("rq")), "info", "--url", url, *options]
    environment = {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment).stdout
