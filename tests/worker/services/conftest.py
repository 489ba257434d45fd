"""What tests of services share: a service that answers, a job that asks it, the logs and groups of services."""

from __future__ import annotations

import glob
import select
import time
from collections.abc import Callable
from typing import Any

import pytest

from dayfly.worker.settings import WorkerSettings
from dayfly.worker.store import service_log_id

_DEADLINE_SECONDS = 60.0

# Answers each connection with its host name and WHO, and says so when it listens.
_SERVER = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("listening", flush=True)
while True:
    connection = listener.accept()[0]
    connection.sendall(socket.gethostname().encode() + b" " + os.environ.get("WHO", "").encode() + b"\\n")
    connection.close()
"""
_ASK = """
import socket, sys
for name, port in zip(sys.argv[1::2], sys.argv[2::2]):
    with socket.create_connection((name, int(port))) as connection:
        print(connection.makefile().readline(), end="")
"""


@pytest.fixture
def server() -> Callable[..., dict[str, Any]]:
    """`server("db", 5432, env={"WHO": "x"})`: a service that answers on a port."""

    def make(name: str, port: int, **fields: Any) -> dict[str, Any]:
        command = ["python3", "-c", _SERVER, str(port)]
        return {"image": "host", "name": name, "command": command, "ready": f"tcp:{port}", **fields}

    return make


@pytest.fixture
def sh() -> Callable[..., dict[str, Any]]:
    """`sh("db", "sleep 100")`: a service that is a shell script."""

    def make(name: str, script: str, **fields: Any) -> dict[str, Any]:
        return {"image": "host", "name": name, "command": ["sh", "-c", script], **fields}

    return make


@pytest.fixture
def ask() -> Callable[..., list[str]]:
    """`ask("db", 5432, "localhost", 6379)`: a command that prints what each of them answers."""
    return lambda *names_and_ports: ["python3", "-c", _ASK, *map(str, names_and_ports)]


@pytest.fixture
def service_log(worker: Any) -> Callable[[str, str], bytes]:
    """`service_log(job, "db")`: what a service wrote, as the store has it."""
    return lambda job, name: b"".join(frame.payload for frame in worker.store.read_log(service_log_id(job, name)))


@pytest.fixture
def warnings() -> Callable[[Any], tuple[str, ...]]:
    """A result's warnings, but for what a host says of every job: that its /usr cannot be mapped, say."""
    return lambda result: tuple(each for each in result.warnings if "belongs to nobody" not in each)


@pytest.fixture
def groups(worker: Any) -> Callable[[], list[str]]:
    """The control groups of this home's keepers."""
    tag = WorkerSettings(worker.home, worker.url, "w").cgroup_tag
    return lambda: list(glob.glob(f"/sys/fs/cgroup/**/dayfly-{tag}/*/", recursive=True))


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], None]:
    """Look until something is true, with a deadline: not all of it is told to anybody."""

    def wait(is_true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not is_true():
            assert time.monotonic() < deadline, "it did not become true in time"
            select.select([], [], [], 0.005)

    return wait
