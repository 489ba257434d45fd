"""What services could open: the ports of another job, and a way around the limits of their own."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from dayfly.jobs.services import Ready
from dayfly.runtime.container import Container, Host
from dayfly.runtime.init_process import Serving
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.shape import ContainerPlan, Process, Quotas, Shape
from dayfly.runtime.sibling import Sibling

pytestmark = pytest.mark.kernel

_PORT = 7813
_DEADLINE_SECONDS = 60.0
_SIGTERM = 15
_SERVER = f"import socket, time; listener = socket.create_server(('127.0.0.1', {_PORT})); time.sleep(100)"
_CONNECT = f"""
import json, socket
try:
    socket.create_connection(("127.0.0.1", {_PORT}), 5).close()
    print(json.dumps("reached"))
except OSError as error:
    print(json.dumps(error.strerror))
"""
_FORKS = """
import os, time
made = 0
try:
    for _ in range(200):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
time.sleep(30)
"""

Beside = Callable[..., tuple[Container, Sibling]]
Ask = Callable[..., Any]


@pytest.fixture
def beside(host: Host, shape: Shape) -> Iterator[Beside]:
    """`beside(PROGRAM)`: a job's container, not started yet, and a service that runs a Python program beside it."""
    with ExitStack() as stack:

        def make(program: str, *, quotas: Quotas = shape.quotas, ready: Ready | None = None) -> Any:
            job = Container.prepare(host, replace(shape, quotas=quotas), os.urandom(8).hex())
            stack.callback(job.discard)
            job.divide()
            plain = replace(shape, quotas=Quotas(), disk_bytes=None)
            service = Sibling.prepare(host, job, plain, "db")
            stack.callback(service.discard)
            process = Process(argv=("python3", "-c", program), env={"PATH": "/usr/bin:/bin"}, cwd="/")
            assert service.start(ContainerPlan(shape=plain, process=process, ready=ready), _SIGTERM) is None
            while ready is not None and not isinstance(service.init.hear(), Serving):
                pass
            return job, service

        yield make


@pytest.fixture
def ask() -> Ask:
    """`ask(container, PROGRAM)`: start a prepared container with a program, and give what it tells."""

    def start(container: Container, program: str) -> Any:
        process = Process(argv=("python3", "-c", program), env={"PATH": "/usr/bin:/bin"}, cwd="/")
        assert container.start(ContainerPlan(shape=container.shape, process=process), _SIGTERM, {}) is None
        return json.loads(_line(container.init.stdout))

    return start


@pytest.mark.host_root("its control brings up a device of the host's network")
def test_a_service_is_reached_by_its_own_job_and_by_no_other(
    beside: Beside, ask: Ask, host: Host, shape: Shape, tally: Any
) -> None:
    """127.0.0.1 is each job's own; where both stay in the host's network the port is anybody's."""

    def reach_from_another() -> Any:
        beside(_SERVER, ready=Ready(_PORT))
        other = Container.prepare(host, shape, os.urandom(8).hex())
        try:
            return ask(other, _CONNECT)
        finally:
            other.discard()

    own, _ = beside(_SERVER, ready=Ready(_PORT))
    held = ask(own, _CONNECT), reach_from_another()
    with pytest.MonkeyPatch.context() as patch:
        real = Namespaces.enter
        patch.setattr(Namespaces, "enter", lambda self, *names: real(self, *(each for each in names if each != "net")))
        bit = reach_from_another()
    tally.judge(held=held == ("reached", "Connection refused"), bit=bit == "reached", seen=(held, bit))


@pytest.mark.limits
def test_a_fork_bomb_in_a_service_meets_its_jobs_limit(beside: Beside, shape: Shape, tally: Any) -> None:
    """A service without limits of its own is within the job's 64 processes; without that limit it has its 200."""

    def forks(pids: int | None) -> int:
        _, service = beside(_FORKS, quotas=replace(shape.quotas, pids=pids))
        return int(_line(service.init.stdout))

    held, bit = forks(64), forks(None)
    tally.judge(held=held < 64, bit=bit == 200, seen=(held, bit))


def _line(fd: int) -> bytes:
    """The first line of a pipe."""
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([fd], [], [], _DEADLINE_SECONDS)[0], line
        chunk = os.read(fd, 4096)
        assert chunk, line
        line += chunk
    return line
