"""Redis's errors, as they reach people."""

from __future__ import annotations

import contextlib
import inspect
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis.exceptions
from redis import Redis

from dayfly.jobs.demand import Capacity
from dayfly.jobs.errors import QueueError, QueueNotReady, QueueRefused, QueueUnreachable
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import Outcome
from dayfly.queue.connection import Backoff, connect, translate
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records

OpenClient = Callable[[str], Redis]

# Errors of redis-py that can only come from a call that we do not make, or that we catch where they come.
NEVER = {
    "ChildDeadlockedError": "of a lock in redis-py itself after a fork",
    "CrossSlotTransactionError": "of RedisCluster",
    "IncorrectPolicyType": "of RedisCluster",
    "InvalidPipelineStack": "of RedisCluster",
    "SlotNotCoveredError": "of RedisCluster",
    "RedisClusterException": "of RedisCluster",
}

# What each becomes; QueueError itself is for bugs of ours and for answers that nobody foresaw.
KINDS = {
    QueueUnreachable: {
        "ConnectionError",
        "TimeoutError",
        "MaxConnectionsError",
        "ExternalAuthProviderError",
    },
    QueueRefused: {
        "AuthenticationError",
        "AuthenticationWrongNumberOfArgsError",
        "AuthorizationError",
        "NoPermissionError",
        "OutOfMemoryError",
        "ClusterError",
        "ClusterDownError",
        "ClusterCrossSlotError",
        "AskError",
        "MovedError",
        "TryAgainError",
    },
    QueueNotReady: {
        "BusyLoadingError",
        "ReadOnlyError",
        "MasterDownError",
    },
    QueueError: {
        "RedisError",
        "ResponseError",
        "DataError",
        "InvalidResponse",
        "PubSubError",
        "WatchError",
        "NoScriptError",
        "ExecAbortError",
        "ModuleError",
        "NoSuchFieldsetError",
        "LockError",
        "LockNotOwnedError",
    },
}


def test_every_error_of_redis_py_has_its_kind() -> None:
    """A new public exception of redis-py fails here until somebody has decided what it becomes."""
    exceptions = {
        name: kind
        for name, kind in vars(redis.exceptions).items()
        if inspect.isclass(kind) and issubclass(kind, Exception) and not name.startswith("_")
    }
    decided = NEVER.keys() | {name for names in KINDS.values() for name in names}
    assert exceptions.keys() <= decided, f"not mapped: {exceptions.keys() - decided}"
    for expected, names in KINDS.items():
        for name in names & exceptions.keys():
            error = exceptions[name]("1 host:6379") if name in ("AskError", "MovedError") else exceptions[name]("why")
            assert type(translate(error)) is expected, name


@pytest.mark.parametrize("code", ["NOAUTH", "WRONGPASS", "NOPERM", "OOM", "MISCONF"])
def test_a_refusal_inside_a_script_is_one_too(code: str) -> None:
    """Redis repeats its code in front of what a script met; the remedy is said."""
    error = translate(redis.exceptions.ResponseError(f"{code} some words script: 0123, on @user_script:1."))
    assert type(error) is QueueRefused
    assert error.remedy


@pytest.mark.parametrize("code", ["LOADING", "MASTERDOWN", "READONLY", "BUSY", "UNBLOCKED"])
def test_a_refusal_that_passes_is_one_to_wait_out(code: str) -> None:
    """What a restart or a failover answers meanwhile is told apart from what stays as it is."""
    error = translate(redis.exceptions.ResponseError(f"{code} some words"))
    assert type(error) is QueueNotReady
    assert error.remedy


def test_no_server_is_said_with_its_address(open_client: OpenClient, tmp_path: Path) -> None:
    """Nobody there: the address and the remedy."""
    with pytest.raises(QueueUnreachable, match=r"cannot reach Redis at unix://.*/none.*is the server running"):
        Records(open_client(f"unix://{tmp_path}/none")).get("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(QueueUnreachable, match=rf"127\.0\.0\.1:{port}"):
        Producer(open_client(f"redis://127.0.0.1:{port}")).submit(JobSpec())


@pytest.mark.parametrize("url", ["http://host", "host:6379", "redis://host:port", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Said before anything is tried."""
    with pytest.raises(QueueError, match="cannot connect to"):
        connect(url)


def test_a_password_is_not_told() -> None:
    """Not even in the message of a wrong address."""
    with pytest.raises(QueueError) as caught:
        connect("redis+wrong://user:geheim@host/0")
    assert "geheim" not in str(caught.value)


def test_a_silent_server_does_not_hold_a_call_for_ever(
    open_client: OpenClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A server that accepts and says nothing (half-open) is unreachable once the time is over."""
    monkeypatch.setattr("dayfly.queue.connection.SOCKET_SECONDS", 0.05)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with pytest.raises(QueueUnreachable):
            Records(open_client(f"unix://{tmp_path}/s")).get("x")


@pytest.fixture
def open_client() -> Iterator[OpenClient]:
    """`open_client(url)`: a connection that is closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda url: stack.enter_context(contextlib.closing(connect(url)))


@pytest.fixture
def server(tmp_path: Path, valkey_program: str) -> Iterator[str]:
    """A server of this test alone, to be mistreated."""
    path = tmp_path / "own"
    command = [valkey_program, "--port", "0", "--unixsocket", str(path), "--dir", str(tmp_path), "--save", ""]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while b"Ready to accept" not in process.stdout.readline():
        assert process.poll() is None
    try:
        yield f"unix://{path}"
    finally:
        process.kill()
        process.communicate()


def test_a_wrong_password_is_said(open_client: OpenClient, server: str) -> None:
    """WRONGPASS and NOAUTH both name the password."""
    open_client(server).config_set("requirepass", "right")
    for url in (server, server.replace("unix://", "unix://:wrong@")):
        with pytest.raises(QueueRefused, match="check the password"):
            Producer(open_client(url)).submit(JobSpec())


def test_a_full_server_takes_nothing_and_loses_nothing(
    open_client: OpenClient, server: str, ended: Callable[..., Result]
) -> None:
    """OOM: a submission is refused with the remedy and nothing half written; what is there is run to its end."""
    admin = open_client(server)
    producer, records = Producer(open_client(server)), Records(open_client(server))
    offer = Capacity(1000, 1000, 1000)
    consumer = Consumer(open_client(server), "w1", ["default"], "h", {}, offer=offer, share=offer)
    first = producer.submit(JobSpec())
    admin.config_set("maxmemory", 1)
    with pytest.raises(QueueRefused, match="maxmemory"):
        producer.submit(JobSpec())
    assert [record.id for record in records.ls()] == [first]
    claim = consumer.claim(offer)
    assert claim is not None
    assert claim.job_id == first
    assert consumer.finish(claim, ended(claim))
    assert records.get(first).outcome is Outcome.SUCCEEDED


def test_a_replica_is_said_to_be_one(open_client: OpenClient, server: str, tmp_path: Path) -> None:
    """READONLY: the remedy is the primary's address."""
    open_client(server).execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(QueueRefused, match="replica"):
        Producer(open_client(server)).submit(JobSpec())


def test_backoff_grows_and_is_random() -> None:
    """From some 50 ms to some 5 s, and from the start again after a success."""
    backoff = Backoff()
    waits = [backoff.next_seconds() for _ in range(12)]
    assert 0.025 <= waits[0] <= 0.05
    assert all(2.5 <= wait <= 5 for wait in waits[-4:])
    assert len(set(waits)) == len(waits)
    backoff.reset()
    assert backoff.next_seconds() <= 0.05
