"""Q2: keys of other types than ours, written by anybody: one entry is lost by it, and no worker.

Each is tried on a worker with a job that runs: it goes on renewing, takes the next job and ends both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import QueueDamaged, QueueError
from dayfly.jobs.result import Result
from dayfly.jobs.state import Outcome, State
from dayfly.queue import keys
from dayfly.queue.claims import Claim
from dayfly.queue.commands import ask, ask_each
from dayfly.queue.consumer import Consumer, Hold
from dayfly.queue.foreign import Intake
from dayfly.queue.logs import STDOUT, LogLine, LogStream
from dayfly.queue.producer import Producer
from dayfly.queue.reaper import Reaper
from dayfly.worker.capacity import Ledger
from dayfly.worker.claiming import Claiming
from dayfly.worker.liaison import Liaison
from dayfly.worker.roster import Roster

_OFFER = Capacity(4000, 8192, 40960)
_DOCUMENT = {"image": "host", "command": ["true"]}


@pytest.fixture
def consumer(redis: Redis) -> Consumer:
    return Consumer(redis, "w", ["default"], "host", {}, offer=_OFFER, share=_OFFER.share(4))


class _Starter:
    """Takes what it is given, and has it run for ever."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []

    def start(self, claim: Claim, seconds: float, pulled: Any = ()) -> Any:
        self.claims.append(claim)
        return SimpleNamespace(claim=claim)


class _Running(Roster):
    """The jobs of that starter."""

    def __init__(self, starter: _Starter) -> None:
        super().__init__()
        self._starter = starter

    def has(self, execution_id: str) -> bool:
        return any(claim.execution_id == execution_id for claim in self._starter.claims)

    def __len__(self) -> int:
        return len(self._starter.claims)

    def unsettled(self) -> list[Any]:
        return [
            SimpleNamespace(claim=claim, job_id=claim.job_id, is_gone=True, stop=self._stopped)
            for claim in self._starter.claims
        ]

    def _stopped(self, cause: str, is_urgent: bool) -> None:
        raise AssertionError(f"the job was stopped: {cause}")


class _NoBuilds(dict[str, Any]):
    """Of a worker that builds nothing."""

    has = dict.__contains__


def _worker(redis: Redis, consumer: Consumer) -> tuple[Liaison, Claiming, Any]:
    starter: Any = _Starter()
    stream, ledger = LogStream(redis), Ledger(_OFFER, 4)
    nobody: Any = _NoBuilds()
    claiming = Claiming(
        consumer, stream, starter, ledger, lambda: True, lambda job: None, lambda ref, is_fresh: None, nobody, nobody
    )
    reaper = Reaper(redis, ["default"], 30.0)
    liaison = Liaison(consumer, stream, reaper, Intake(redis), claiming, starter, _Running(starter), ledger)
    return liaison, claiming, starter


def _lease_of_another(redis: Redis) -> None:
    redis.zadd("dayfly:leases", {"a:b": 9999999999.0})
    redis.set("rq:execution:a:b", "x")


def _lease_that_is_over(redis: Redis) -> None:
    redis.zadd("dayfly:leases", {"a:b": 1.0})
    redis.set("rq:execution:a:b", "x")
    redis.hset("dayfly:redis", "since", "0")


def _job_of_a_plain_list(redis: Redis) -> None:
    redis.set("rq:job:evil", "x")
    redis.rpush("rq:queue:default", "evil")


def _plain_list(redis: Redis) -> None:
    redis.set("rq:queue:default", "x")


def _list_of_a_class(redis: Redis) -> None:
    redis.set("rq:queue:default@-:-:-:p9", "x")
    redis.zadd("dayfly:index:default", {"default@-:-:-:p9": -9e11})


def _registries(redis: Redis) -> None:
    for name in ("dayfly:clients", "dayfly:deadlines", "rq:queues"):
        redis.delete(name)
        redis.set(name, "x")


def _own_record(redis: Redis) -> None:
    redis.delete("rq:worker:w")
    redis.set("rq:worker:w", "x")


@pytest.mark.attack("Q2")
@pytest.mark.parametrize(
    "write",
    [
        *(_lease_of_another, _lease_that_is_over, _job_of_a_plain_list, _plain_list, _list_of_a_class),
        *(_registries, _own_record),
    ],
)
def test_q2_a_key_of_another_type_stops_no_worker(
    write: Callable[[Redis], None], redis: Redis, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease of the job that runs is renewed, the next job is taken, also after a hiccup of the connection."""
    liaison, _, starter = _worker(redis, consumer)
    renewed: list[dict[str, Hold]] = []
    renew = consumer.renew
    monkeypatch.setattr(consumer, "renew", lambda claims: renewed.append(renew(claims)) or renewed[-1])
    first = Producer(redis).submit(read_job(_DOCUMENT))
    liaison.deal()
    write(redis)
    second = Producer(redis).submit(read_job(_DOCUMENT)) if write is not _registries else None
    for _ in range(3):
        liaison.forget()
        liaison.arrived("default")
        liaison._reap_at = liaison._renew_at = 0.0
        liaison.deal()
    assert [claim.job_id for claim in starter.claims] == [first, *([second] if second else [])]
    assert all(hold is Hold.HELD for hold in renewed[-1].values())
    assert set(renewed[-1]) >= {first}


@pytest.mark.attack("Q2")
def test_q2_a_job_that_is_no_hash_loses_its_own_lease(redis: Redis, consumer: Consumer) -> None:
    """The others of that worker keep theirs."""
    for _ in range(2):
        Producer(redis).submit(read_job(_DOCUMENT))
    claims = [claim for claim in (consumer.claim(_OFFER), consumer.claim(_OFFER)) if claim]
    redis.delete(keys.job(claims[0].job_id))
    redis.set(keys.job(claims[0].job_id), "x")
    assert list(consumer.renew(claims).values()) == [Hold.LOST, Hold.HELD]


@pytest.mark.attack("Q2")
@pytest.mark.parametrize("what", ["log", "readers", "bytes", "kept", "heard", "position", "job"])
def test_q2_what_is_no_log_begins_anew(what: str, redis: Redis, consumer: Consumer) -> None:
    """A log that cannot be appended to would keep its job from ending, and those beside it from being read."""
    ids = [Producer(redis).submit(read_job(_DOCUMENT)) for _ in range(2)]
    claims = [claim for claim in (consumer.claim(_OFFER), consumer.claim(_OFFER)) if claim]
    stream = LogStream(redis)
    hurt, key = ids[0], keys.job(ids[0])
    stream.append(claims[0], [LogLine(1.0, STDOUT, b"before\n")], 7)
    if what in ("log", "readers"):
        name = keys.log(hurt) if what == "log" else keys.readers(hurt)
        redis.delete(name)
        redis.set(name, "x")
    elif what == "heard":
        redis.hset(keys.readers(hurt), mapping={"a": "x garbage", "b": "0 never"})
        redis.hset(key, "dayfly_log_kept", 5 << 20)
    elif what == "job":
        redis.delete(key)
        redis.set(key, "x")
    else:
        field = {"bytes": "dayfly_log_bytes", "kept": "dayfly_log_kept", "position": "dayfly_log_position"}[what]
        redis.hset(key, field, "zz")
    lines = [LogLine(2.0, STDOUT, b"after\n")]
    assert stream.append_many([(claims[0], lines, 20), (claims[1], lines, 20)]) == [True, True]
    assert [line.data for line in stream.read(ids[1])] == [b"after\n"]
    if what not in ("job", "readers"):
        assert [line.data for line in stream.read(hurt)][-1] == b"after\n"
    if what != "job":
        assert consumer.finish(claims[0], _ended(claims[0]))


def test_damage_is_told_from_a_server_in_trouble(redis: Redis) -> None:
    """By one command, in a pipeline and in a script; a word that Redis does not know is no damage."""
    redis.set("x", "text")
    for asked in (
        lambda: ask(redis, "HGET", "x", "y"),
        lambda: ask_each(redis, [("GET", "x"), ("HGET", "x", "y")]),
        lambda: ask(redis, "INCR", "x"),
        lambda: ask(redis, "EVAL", "return redis.call('HGET', 'x', 'y')", 0),
        lambda: ask(redis, "EVAL", "return 1 + nil", 0),
    ):
        with pytest.raises(QueueDamaged, match=r"holds what is not Dayfly's: .*Give Dayfly a database of its own"):
            asked()
    with pytest.raises(QueueError):
        ask(redis, "NOSUCHCOMMAND")


def test_rejected_jobs_leave_time_for_those_that_run(
    redis: Redis, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is rejected takes no slot: a queue full of it is gone through in turns, and leases are renewed between."""
    from dayfly.worker import claiming as module
    from dayfly.worker.starting import Rejected

    liaison, claiming, starter = _worker(redis, consumer)

    def reject(claim: Claim, seconds: float, pulled: Any = ()) -> Any:
        raise Rejected("no", None)

    monkeypatch.setattr(starter, "start", reject)
    monkeypatch.setattr(module, "_CLAIMING_SECONDS", 0.0)
    for _ in range(3):
        Producer(redis).submit(read_job(_DOCUMENT))
    turns = 0
    while claiming.may_have_work:
        assert turns == 0 or liaison.due_at() == 0.0
        liaison.deal()
        turns += 1
    assert turns >= 3


def _ended(claim: Claim) -> Result:
    return replace(Result(id=claim.job_id, state=State.FINISHED), outcome=Outcome.SUCCEEDED, exit_code=0)
