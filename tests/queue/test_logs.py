"""The live log: nothing missing, nothing twice, and an end."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.errors import JobNotFound
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import Outcome
from dayfly.queue.claims import Claim
from dayfly.queue.connection import connect
from dayfly.queue.consumer import Consumer
from dayfly.queue.logs import GAP, KEPT_BYTES, LogLine, LogStream
from dayfly.queue.producer import Producer

DEADLINE_SECONDS = 20.0


@pytest.fixture
def claim(producer: Producer, consumer: Consumer, offer: Capacity) -> Claim:
    producer.submit(JobSpec())
    claim = consumer.claim(offer)
    assert claim is not None
    return claim


def test_bytes_come_back_as_they_were(log_stream: LogStream, claim: Claim) -> None:
    """Every byte, both streams, empty pieces and times, in order."""
    lines = [
        LogLine(1700000000.25, 1, bytes(range(256))),
        LogLine(1700000000.5, 2, b"\xff\x00no newline"),
        LogLine(1700000000.75, 1, b""),
    ]
    log_stream.append(claim, lines)
    assert list(log_stream.read(claim.job_id)) == lines


def test_a_follower_sees_all_and_ends(
    valkey: str,
    log_stream: LogStream,
    consumer: Consumer,
    claim: Claim,
    ended: Callable[..., Result],
) -> None:
    """One who follows while the job writes gets each byte once, and ends by itself when the job does."""
    seen: list[bytes] = []
    first = threading.Event()

    def follow() -> None:
        for line in LogStream(connect(valkey)).follow(claim.job_id):
            seen.append(line.data)
            first.set()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        log_stream.append(claim, [LogLine(1.0, 1, b"first\n")])
        assert first.wait(DEADLINE_SECONDS)
        for number in range(500):
            log_stream.append(claim, [LogLine(1.0, 1, f"{number}\n".encode())])
    finally:
        consumer.finish(claim, ended(claim))
        thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()
    assert seen == [b"first\n", *(f"{number}\n".encode() for number in range(500))]


def test_a_finished_log_is_read_to_its_end(
    log_stream: LogStream, consumer: Consumer, claim: Claim, ended: Callable[..., Result]
) -> None:
    """Who follows after the end gets all of it, over many pages."""
    log_stream.append_many([(claim, [LogLine(1.0, 1, b"%d\n" % number)], number + 1) for number in range(1500)])
    consumer.finish(claim, ended(claim))
    assert [line.data for line in log_stream.follow(claim.job_id)] == [b"%d\n" % number for number in range(1500)]


def test_a_silent_job_ends_its_follower(
    log_stream: LogStream, consumer: Consumer, claim: Claim, ended: Callable[..., Result]
) -> None:
    """A job without output has an empty log that ends."""
    consumer.finish(claim, ended(claim, Outcome.FAILED))
    assert list(log_stream.follow(claim.job_id)) == []


def test_a_job_cancelled_in_the_queue_ends_its_follower(log_stream: LogStream, producer: Producer) -> None:
    """Nothing was written and nothing will be."""
    job_id = producer.submit(JobSpec())
    producer.cancel(job_id)
    assert list(log_stream.follow(job_id)) == []


def test_what_is_sent_twice_is_there_once(log_stream: LogStream, claim: Claim) -> None:
    """An agent that adopts a job may send again what the one before it has sent."""
    assert log_stream.position(claim) == 0
    log_stream.append(claim, [LogLine(1.0, 1, b"a\n")], position=15)
    log_stream.append(claim, [LogLine(1.0, 1, b"a\n")], position=15)
    assert log_stream.position(claim) == 15
    log_stream.append(claim, [LogLine(1.0, 1, b"b\n")], position=30)
    assert [line.data for line in log_stream.read(claim.job_id)] == [b"a\n", b"b\n"]


def test_a_long_append_cut_off_is_sent_again_as_a_whole(log_stream: LogStream, claim: Claim) -> None:
    """Only the last entry of an append moves the position."""
    log_stream.append(claim, [LogLine(1.0, 1, b"x" * 100_000)], position=100_013)
    assert b"".join(line.data for line in log_stream.read(claim.job_id)) == b"x" * 100_000
    assert log_stream.position(claim) == 100_013


def test_a_flood_is_bounded_and_said_to_be(redis: Redis, log_stream: LogStream, claim: Claim) -> None:
    """Redis keeps the newest bytes, and a late reader is told what is left out."""
    piece = b"y" * 60_000 + b"\n"
    rounds = 3 * KEPT_BYTES // len(piece)
    for number in range(rounds):
        log_stream.append(claim, [LogLine(1.0, 1, b"%d " % number + piece)])
    assert (redis.memory_usage(f"dayfly:log:{claim.job_id}", samples=0) or 0) < 1.3 * KEPT_BYTES
    first, *lines = log_stream.read(claim.job_id)
    assert first.stream == GAP
    assert b"left out" in first.data
    kept = b"".join(line.data for line in lines)
    assert kept.endswith(b"%d " % (rounds - 1) + piece)
    assert 0.8 * KEPT_BYTES < len(kept) <= KEPT_BYTES


def test_tiny_entries_are_bounded_too(redis: Redis, log_stream: LogStream, claim: Claim) -> None:
    """A job that writes byte by byte does not fill Redis with the entries' own weight."""
    for _ in range(20):
        log_stream.append_many([(claim, [LogLine(1.0, 1, b".")], None)] * 2000)
    assert redis.xlen(f"dayfly:log:{claim.job_id}") < KEPT_BYTES / 128


def test_a_further_attempt_goes_on_in_the_same_log(
    log_stream: LogStream, consumer: Consumer, claim: Claim, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """The log of a job holds all its attempts, and a follower stays over them."""
    log_stream.append(claim, [LogLine(1.0, 1, b"one\n")], position=17)
    consumer.requeue(claim, count_attempt=True)
    again = consumer.claim(offer)
    assert again is not None
    assert log_stream.position(again) == 0
    log_stream.append(again, [LogLine(2.0, 1, b"two\n")], position=17)
    consumer.finish(again, ended(again))
    assert [line.data for line in log_stream.follow(claim.job_id)] == [b"one\n", b"two\n"]


def test_an_unknown_job_has_no_log(log_stream: LogStream) -> None:
    """Said at once, not waited for."""
    with pytest.raises(JobNotFound):
        list(log_stream.follow("01HZZZZZZZZZZZZZZZZZZZZZZZ"))


def test_what_a_follower_has_yet_to_read_is_not_taken_away(
    valkey: str, redis: Redis, log_stream: LogStream, consumer: Consumer, claim: Claim, ended: Callable[..., Result]
) -> None:
    """A flood waits for one who reads on, and each byte comes once."""
    flood = [(claim, [LogLine(1.0, 1, b"%6d" % number + bytes(16_000))], number + 1) for number in range(600)]
    seen: list[bytes] = []
    has_begun, may_go_on = threading.Event(), threading.Event()

    def follow() -> None:
        for line in LogStream(connect(valkey)).follow(claim.job_id):
            seen.append(line.data)
            has_begun.set()
            may_go_on.wait(DEADLINE_SECONDS)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        log_stream.append(claim, [LogLine(1.0, 1, b"first")])
        assert has_begun.wait(DEADLINE_SECONDS)
        taken = sum(log_stream.append_many(flood))
        assert taken < len(flood)  # it has read nothing of it yet
        may_go_on.set()
        while taken < len(flood):
            taken += sum(log_stream.append_many(flood[taken : taken + 50]))
    finally:
        may_go_on.set()
        consumer.finish(claim, ended(claim))
        thread.join(DEADLINE_SECONDS)
    assert seen == [b"first", *(lines[0].data for _, lines, _ in flood)]
    assert not redis.exists(f"dayfly:readers:{claim.job_id}")


def test_a_silent_follower_is_not_waited_for(valkey: str, redis: Redis, log_stream: LogStream, claim: Claim) -> None:
    """One who has not been heard of for a quarter of a minute misses what had to go, and is told how much."""
    follower = LogStream(connect(valkey)).follow(claim.job_id)
    log_stream.append(claim, [LogLine(1.0, 1, b"first")])
    assert next(follower).data == b"first"
    ((token, heard),) = redis.hgetall(f"dayfly:readers:{claim.job_id}").items()
    offset, at = heard.split()
    redis.hset(f"dayfly:readers:{claim.job_id}", token, b"%s %f" % (offset, float(at) - 16))
    flood = [(claim, [LogLine(1.0, 1, bytes(16_000))], None) for _ in range(600)]
    assert all(log_stream.append_many(flood))
    assert next(follower).stream == GAP
