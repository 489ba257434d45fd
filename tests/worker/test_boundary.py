"""What nobody foresaw costs the one job or entry that it comes from, is logged with its traceback, and no more."""

import contextlib
import time
from typing import Any

import pytest
import structlog

from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import QueueUnreachable
from dayfly.jobs.state import Outcome
from dayfly.queue import foreign, keys, reaper, wakeup
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.queue.foreign import Intake
from dayfly.queue.logs import LogStream
from dayfly.queue.producer import Producer
from dayfly.queue.reaper import Reaper
from dayfly.queue.records import Records
from dayfly.queue.wakeup import Kind, Wakeup
from dayfly.worker.capacity import Ledger
from dayfly.worker.claiming import Claiming
from dayfly.worker.exit import Exit
from dayfly.worker.liaison import Liaison
from dayfly.worker.roster import Roster

_OFFER = Capacity(4000, 8192, 40960)


@pytest.fixture
def redis(valkey):
    with contextlib.closing(connect(valkey)) as client:
        yield client


@pytest.fixture
def logged():
    with structlog.testing.capture_logs() as events:
        yield events


def _faults(logged):
    assert all(each["log_level"] == "error" and each["exc_info"] for each in logged if "fault" in each["event"])
    return [each["why"] for each in logged if each["event"] == "fault of our own"]


class _Broken:
    """A starter and a finisher that raise what nobody foresaw."""

    def __init__(self, error):
        self.error = error

    def start(self, claim, seconds, pulled=()):
        raise self.error

    def finish(self, job, free):
        raise self.error


class _Ended:
    """A job whose keeper has left its end."""

    is_settled = has_new_log = False
    unmarked = result = None
    ending = Exit(cause="exited")

    def __init__(self, claim):
        self.claim = claim
        self.job_id = claim.job_id
        self.spec = read_job(claim.document)


class _NoBuilds(dict[str, Any]):
    """Of a worker that builds nothing."""

    has = dict.__contains__


def _liaison(redis, broken, roster):
    consumer = Consumer(redis, "w", ["default"], "host", {}, offer=_OFFER, share=_OFFER.share(2))
    stream, ledger = LogStream(redis), Ledger(_OFFER, 2)
    nobody: Any = _NoBuilds()
    claiming = Claiming(
        consumer, stream, broken, ledger, lambda: True, lambda job: None, lambda ref, is_fresh: None, nobody, nobody
    )
    reaper = Reaper(redis, ["default"], 30.0)
    return Liaison(consumer, stream, reaper, Intake(redis), claiming, broken, roster, ledger), consumer


def test_a_job_that_cannot_be_started_for_a_fault_of_ours_is_rejected(redis, logged):
    """It says so, and the worker asks for the next one."""
    job_ids = [Producer(redis).submit(read_job({"image": "host", "command": ["true"]})) for _ in range(2)]
    liaison, _ = _liaison(redis, _Broken(KeyError("ports")), Roster())
    liaison.deal()
    results = [Records(redis).get(job_id).result for job_id in job_ids]
    assert [each.outcome for each in results] == [Outcome.REJECTED] * 2
    assert "KeyError: 'ports'; this is a fault of Dayfly's own" in results[0].message
    assert _faults(logged) == ["KeyError: 'ports'"] * 2


def test_a_queue_that_does_not_answer_is_no_fault_of_a_job(redis, logged):
    """A connection that breaks while a job starts goes where it always went."""
    job_id = Producer(redis).submit(read_job({"image": "host", "command": ["true"]}))
    liaison, _ = _liaison(redis, _Broken(QueueUnreachable("gone")), Roster())
    with pytest.raises(QueueUnreachable):
        liaison.deal()
    assert Records(redis).get(job_id).outcome is None
    assert not _faults(logged)


def test_a_job_whose_end_cannot_be_told_for_a_fault_of_ours_is_lost(redis, logged):
    """Its own end is not known to anybody, but that it has one is."""
    job_id = Producer(redis).submit(read_job({"image": "host", "command": ["true"]}))
    roster = Roster()
    liaison, consumer = _liaison(redis, _Broken(TypeError("odd")), roster)
    job = _Ended(consumer.claim(_OFFER))
    roster.touched.add(job)
    roster.has = lambda execution_id: True
    liaison.deal()
    result = Records(redis).get(job_id).result
    assert result.outcome is Outcome.LOST
    assert "TypeError: odd" in result.message
    assert job.is_settled
    assert _faults(logged) == ["TypeError: odd"]


def _explode(*_arguments):
    raise ZeroDivisionError("odd")


def test_an_entry_that_the_reaper_cannot_deal_with_is_dropped(redis, logged, monkeypatch):
    """It does not come up again each second, and what else is due is done."""
    monkeypatch.setattr(reaper, "time_out", _explode)
    redis.zadd(keys.DEADLINES, {"a": 1.0, "b": 1.0})
    Reaper(redis, ["default"], 30.0).tick()
    assert redis.zcard(keys.DEADLINES) == 0
    assert _faults(logged) == ["ZeroDivisionError: odd"] * 2


def test_a_plain_producers_job_that_cannot_be_looked_at_is_parked(redis, logged, monkeypatch):
    """The list goes on behind it."""
    monkeypatch.setattr(foreign, "read_document", _explode)
    redis.hset("rq:job:a", mapping={"status": "queued", "data": "x", "origin": "default"})
    redis.rpush(keys.jobs_list("default"), "a")
    intake = Intake(redis)
    assert (intake.take("default"), intake.take("default")) == (1, 0)
    assert b"fault of Dayfly's own" in redis.hget("rq:job:a", "dayfly_parked")
    assert _faults(logged) == ["ZeroDivisionError: odd"]


def test_a_message_that_cannot_be_heard_does_not_make_a_worker_deaf(redis, monkeypatch, await_true):
    """The thread that hears what is published begins anew, and says that there may be work."""
    monkeypatch.setattr(wakeup, "_parse", _explode)
    with Wakeup(redis, "w", ["default"]) as ears:
        deadline = time.monotonic() + 20
        while redis.publish(keys.command_channel("w"), "{}") == 0:
            assert time.monotonic() < deadline

        def is_heard():
            redis.publish(keys.worker_channel("w"), "x")
            return any(wake.kind is Kind.CANCEL for wake in ears.take())

        await_true(is_heard)
