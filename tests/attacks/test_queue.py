"""Q1, Q3, D10: what somebody may put into Redis to have a worker run it, import it, inflate it, or believe it.

The controls are RQ's own classes and worker where the defence is ours alone, else one check less.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pickle
import resource
import select
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, SimpleWorker
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.webhook import Webhook

from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import QueueError
from dayfly.jobs.result import Result, Timings
from dayfly.jobs.state import Outcome, State
from dayfly.queue import scripts
from dayfly.queue.bounded_job import BoundedJob
from dayfly.queue.consumer import Consumer, Hold
from dayfly.queue.foreign import Intake
from dayfly.queue.producer import Producer
from dayfly.queue.reaper import Reaper
from dayfly.queue.records import Records
from dayfly.worker.logfile import NOTE, LogReader, LogWriter, decode_all
from dayfly.worker.places import Places

OFFER = Capacity(4000, 8192, 40960)
DOCUMENT = {"image": "host", "command": ["make"]}
_BOMB_BYTES = 64 << 20


def _queue(redis: Redis, serializer: Any = JSONSerializer) -> Queue:
    return Queue("default", connection=redis, serializer=serializer)


def _is_run_by_us(redis: Redis, consumer: Consumer) -> bool:
    """Whether our worker would run anything of what lies in the queue."""
    while Intake(redis).take("default"):
        pass
    claim = consumer.claim(OFFER)
    return claim is not None and claim.refusal is None


def _run_by_rq(redis: Redis, serializer: Any = JSONSerializer) -> None:
    """What RQ's own worker makes of it."""
    SimpleWorker([_queue(redis, serializer)], connection=redis, serializer=serializer).work(burst=True)


def test_q1_a_function_named_in_redis_is_not_run(tally: Any, redis: Redis, consumer: Consumer, tmp_path: Path) -> None:
    """Any importable name, os.system above all: an RQ worker calls it."""
    canary = tmp_path / "canary"
    _queue(redis).enqueue("os.system", f"touch {canary}")
    held = not _is_run_by_us(redis, consumer) and not canary.exists()
    _queue(redis).enqueue("os.system", f"touch {canary}")
    _run_by_rq(redis)
    tally.judge(held=held, bit=canary.exists(), seen=canary)


class _Touch:
    """What a pickle may hold: a call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_q1_a_pickle_is_not_opened(tally: Any, redis: Redis, consumer: Consumer, tmp_path: Path) -> None:
    """Opening one runs what it says; an RQ worker with its default serializer does."""
    canary = tmp_path / "canary"
    payload = zlib.compress(pickle.dumps(("dayfly.execute", None, (_Touch(canary),), {})))

    def enqueue() -> None:
        job = Queue("default", connection=redis).enqueue("dayfly.execute", DOCUMENT)
        redis.hset(job.key, "data", payload)

    enqueue()
    held = not _is_run_by_us(redis, consumer) and not canary.exists()
    enqueue()
    _run_by_rq(redis, serializer=None)
    tally.judge(held=held, bit=canary.exists(), seen=canary)


def test_q1_a_callback_is_not_called(
    tally: Any, redis: Redis, consumer: Consumer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither of a job as it arrives, nor one that was written into a job of ours later."""

    def enqueue() -> Job:
        return _queue(redis).enqueue("dayfly.execute", DOCUMENT, on_failure=Callback("builtins.print"))

    enqueue()
    job_id = Producer(redis).submit(read_job(DOCUMENT))
    named = {f"{end}_callback_name": "builtins.print" for end in ("success", "failure", "stopped")}
    redis.hset(f"rq:job:{job_id}", mapping={**named, "repeats_left": "1"})
    Intake(redis).take("default")
    claim = consumer.claim(OFFER)
    assert claim is not None
    assert claim.job_id == job_id
    consumer.finish(claim, _ended(claim))
    held = "Job" not in capsys.readouterr().out
    enqueue()
    _run_by_rq(redis)
    tally.judge(held=held, bit="Job" in capsys.readouterr().out, seen=job_id)


def test_q1_a_webhook_is_not_called(tally: Any, redis: Redis, consumer: Consumer) -> None:
    """A worker that fetches URLs for strangers reaches what they cannot."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        listener.setblocking(False)

        def is_called() -> bool:
            return bool(select.select([listener], [], [], 0)[0])

        hooks = [Webhook(url, "failed", timeout=1)]
        _queue(redis).enqueue("dayfly.execute", DOCUMENT, webhooks=hooks)
        held = not _is_run_by_us(redis, consumer) and not is_called()
        _queue(redis).enqueue("dayfly.execute", DOCUMENT, webhooks=hooks)
        _run_by_rq(redis)
        tally.judge(held=held, bit=is_called(), seen=url)


def test_q1_commands_of_rq_take_nothing_but_an_end(redis: Redis) -> None:
    """rq:pubsub names no function: whatever else is published is passed over, and does not silence the worker."""
    from dayfly.queue.wakeup import Kind, Wakeup

    half = b'{"command": "stop-job", "job_id": "\\ud800"}'
    rubbish = [b"\xff\xfe", b"[" * 100_000, b"{}", half, b'{"command": "kill-horse"}', b'{"command": "os.system"}']
    with Wakeup(redis, "w", ["default"]) as wakeup:
        until = time.monotonic() + 20
        while redis.publish("rq:pubsub:w", b"{}") == 0 or redis.publish("dayfly:worker:w", b"x") == 0:
            assert time.monotonic() < until
        for each in rubbish:
            redis.publish("rq:pubsub:w", each)
            redis.publish("dayfly:worker:w", each)
        redis.publish("rq:pubsub:w", json.dumps({"command": "shutdown"}))
        kinds: set[Kind] = set()
        while Kind.DRAIN not in kinds:
            assert select.select([wakeup], [], [], max(until - time.monotonic(), 0))[0], "the worker is deaf"
            kinds |= {wake.kind for wake in wakeup.take()}
    assert Kind.INTAKE not in kinds


def _place_of(redis: Redis, consumer: Consumer, tmp_path: Path) -> str | None:
    """Where our worker would put the job whose id is a way out of the home."""
    job_id = "../../../../../../../../../../../tmp/dayfly-escaped"
    honest = Producer(redis).submit(read_job(DOCUMENT))
    redis.rename(f"rq:job:{honest}", f"rq:job:{job_id}")
    (name,) = redis.keys("rq:queue:default@*")
    redis.lpush(name, job_id)
    claim = consumer.claim(OFFER)
    return None if claim is None else os.path.realpath(Places(tmp_path / "home").job(claim.job_id))


def test_q1_an_id_is_no_path(
    tally: Any, redis: Redis, consumer: Consumer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker names directories by ids, and renames and deletes them as root."""
    held = _place_of(redis, consumer, tmp_path) is None
    redis.flushall()
    source = scripts.CLAIM.source.replace("return #id <= 64 and", "return true or")
    monkeypatch.setitem(scripts.CLAIM.__dict__, "source", source)
    monkeypatch.setitem(scripts.CLAIM.__dict__, "sha", "0" * 40)
    escaped = _place_of(redis, consumer, tmp_path)
    bit = escaped is not None and not escaped.startswith(str(tmp_path))
    tally.judge(held=held, bit=bit, seen=escaped)


@pytest.mark.parametrize("job_id", [b"..", b".", b"a/b", b"../x", b"a\nb", b"", b"\xff\xfe", b"x" * 65])
def test_q1_an_id_from_a_plain_list_is_checked(redis: Redis, consumer: Consumer, job_id: bytes) -> None:
    """It goes out of the list, parked where RQ could have made it, and holds nobody up."""
    good = _queue(redis).enqueue("dayfly.execute", DOCUMENT)
    redis.rename(good.key, b"rq:job:" + job_id)
    redis.delete("rq:queue:default")
    redis.rpush("rq:queue:default", job_id)
    behind = _queue(redis).enqueue("dayfly.execute", DOCUMENT)
    assert Intake(redis).take("default") == 2
    assert Intake(redis).take("default") == 0
    claim = consumer.claim(OFFER)
    assert claim is not None
    assert claim.job_id == behind.id
    assert consumer.claim(OFFER) is None


def _bomb() -> bytes:
    return zlib.compress(b'["dayfly.execute",null,[{"script":"' + b"a" * _BOMB_BYTES + b'"}],{}]')


def test_d10_a_payload_is_not_inflated_beyond_a_document(tally: Any, redis: Redis, consumer: Consumer) -> None:
    """64 KiB that become 64 MiB, as a job arrives; RQ inflates it when it fetches the job."""
    job = _queue(redis).enqueue("dayfly.execute", DOCUMENT)
    redis.hset(job.key, "data", _bomb())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    held = not _is_run_by_us(redis, consumer)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    inflated = len(Job.fetch(job.id, connection=redis, serializer=JSONSerializer)._data)
    tally.judge(held=held and grown < _BOMB_BYTES // 2, bit=inflated > _BOMB_BYTES, seen=(grown, inflated))


def test_d10_a_payload_swapped_while_the_job_runs_is_not_inflated(tally: Any, redis: Redis, consumer: Consumer) -> None:
    """RQ's classes settle what RQ's producers tied to a job, and fetch it: within bounds."""
    job_id = Producer(redis).submit(read_job(DOCUMENT))
    claim = consumer.claim(OFFER)
    assert claim is not None
    redis.hset(f"rq:job:{job_id}", mapping={"data": _bomb(), "repeats_left": "1"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert consumer.finish(claim, _ended(claim))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    assert issubclass(BoundedJob, Job)
    inflated = len(Job.fetch(job_id, connection=redis, serializer=JSONSerializer)._data)
    tally.judge(held=grown < _BOMB_BYTES // 2, bit=inflated > _BOMB_BYTES, seen=(grown, inflated))


def test_d10_a_huge_field_does_not_reach_the_worker(tally: Any, redis: Redis, consumer: Consumer) -> None:
    """In the list of a class, where nobody looks before a worker claims: the claim says so and brings none of it."""
    job_id = Producer(redis).submit(read_job(DOCUMENT))
    huge = b"a" * (32 << 20)
    redis.hset(f"rq:job:{job_id}", mapping={"data": huge, "dayfly_attempts": huge, "dayfly_signature": huge})
    claim = consumer.claim(OFFER)
    assert claim is not None
    held = claim.refusal is not None and claim.signature is None and claim.earlier == ()
    (again,) = consumer.executions()
    held = held and again.refusal is not None and again.signature is None
    tally.judge(held=held, bit=len(redis.hget(f"rq:job:{job_id}", "data")) == len(huge), seen=claim)


@pytest.mark.parametrize("value", [b"x", b"", b"-1", b"nan", b"\xff\xfe", b"9" * 30, b"[" * 100_000])
def test_q2_rubbish_in_any_field_leaves_the_worker_alive(redis: Redis, consumer: Consumer, value: bytes) -> None:
    """Each field of a job's hash, of an execution's, and a member of the leases; what Redis itself refuses is told."""
    job_id = Producer(redis).submit(read_job(DOCUMENT))
    key = f"rq:job:{job_id}"
    for field in [name for name in redis.hkeys(key) if name not in (b"status", b"data")]:
        redis.hset(key, field, value)
    redis.hset(key, mapping={"dayfly_attempts": value, "dayfly_signature": value})
    with contextlib.suppress(QueueError):
        consumer.claim(OFFER)
    redis.zadd("dayfly:leases", {value: 1.0, b"a:" + value: 1.0, f"{job_id}:e": 1.0})
    redis.hset(f"rq:execution:{job_id}:e", mapping={"created_at": value, "worker_name": value})
    consumer.executions()
    Records(redis).get(job_id)


@pytest.mark.parametrize("member", [b"x", b"\xff\xfe", b"x:", b":x", b"a:\xff"])
def test_q2_an_entry_among_the_leases_that_is_none_is_dropped(redis: Redis, consumer: Consumer, member: bytes) -> None:
    """The reaper takes it out, and gives back the job of a lost worker that stands beside it."""
    job_id = Producer(redis).submit(read_job(DOCUMENT))
    assert consumer.claim(OFFER) is not None
    reaper = Reaper(redis, ["default"], 30.0)
    reaper.tick()
    redis.hset("dayfly:redis", "since", "0")
    redis.zadd("dayfly:leases", {member: 1.0, **dict.fromkeys(redis.zrange("dayfly:leases", 0, -1), 1.0)})
    reaper.tick()
    assert redis.zcard("dayfly:leases") == 0
    assert redis.hget(f"rq:job:{job_id}", "status") == b"queued"


@pytest.mark.parametrize("word", [b"zzz", b"\xff", b"lost"])
def test_q2_a_cancel_in_strange_words_is_a_cancel(redis: Redis, consumer: Consumer, word: bytes) -> None:
    """The flag is what counts, as where a job is put back into its queue."""
    job_id = Producer(redis).submit(read_job(DOCUMENT))
    claim = consumer.claim(OFFER)
    assert claim is not None
    redis.hset(f"rq:job:{job_id}", "dayfly_cancel", word)
    assert consumer.renew([claim]) == {job_id: Hold.CANCEL}


def test_q2_a_class_in_the_index_that_is_no_text_is_dropped(redis: Redis, consumer: Consumer) -> None:
    """Its list may hold whatever it will: no worker takes a job from it, nor is any held up."""
    job_id = Producer(redis).submit(read_job(DOCUMENT))
    behind = Producer(redis).submit(read_job(DOCUMENT))
    (honest,) = redis.keys("rq:queue:default@*")
    redis.lrem(honest, 1, job_id)
    name = b"default@-:-:-:\xff"
    redis.rpush(b"rq:queue:" + name, job_id)
    redis.zadd("dayfly:index:default", {name: -1.0})
    claim = consumer.claim(OFFER)
    assert claim is not None
    assert claim.job_id == behind
    assert consumer.claim(OFFER) is None
    assert redis.zscore("dayfly:index:default", name) is None


def test_q2_half_of_a_surrogate_pair_reaches_redis_as_text(redis: Redis, consumer: Consumer) -> None:
    """JSON from anybody may hold one, and a path on disk another: a refusal that quotes it is told all the same."""
    Producer(redis).submit(read_job(DOCUMENT))
    claim = consumer.claim(OFFER)
    assert claim is not None
    message = "cannot use /a\udcff nor \ud800"
    result = dataclasses.replace(_ended(claim, Outcome.REJECTED), message=message)
    assert consumer.finish(claim, result)
    kept = Records(redis).get(claim.job_id).result
    assert kept is not None
    assert kept.message == message
    assert scripts.CANCEL(redis, "\ud800", "cancel", "") == b"missing"


def test_q3_a_log_is_bytes_and_nothing_else(tally: Any, tmp_path: Path) -> None:
    """CVE-2020-15228: output that looks like commands, or like the frames of our own log file.

    The control reads the same bytes as if output could be framing.
    """
    forged = struct.pack("<QBI", 1, NOTE, 7) + b"forged\n"
    markers = b"::set-env name=PATH::/evil\n##vso[task.setvariable]x\n##teamcity[x]\n\x1b[2J\x1b]0;x\x07<script>\n"
    output = forged + markers
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        writer = LogWriter(directory, 1 << 20)
        writer.write(1, output)
        writer.close()
        frames = list(LogReader(directory).frames(is_final=True))
    finally:
        os.close(directory)
    held = [(frame.stream, frame.payload) for frame in frames] == [(1, output)]
    believed = next(decode_all(iter([output])))
    tally.judge(held=held, bit=(believed.stream, believed.payload) == (NOTE, b"forged\n"), seen=frames)


def _ended(claim: Any, outcome: Outcome = Outcome.SUCCEEDED) -> Result:
    times = Timings(queued_at=1.0, claimed_at=1.0, started_at=1.0, finished_at=2.0)
    return Result(id=claim.job_id, state=State.FINISHED, outcome=outcome, queue=claim.queue, timings=times)
