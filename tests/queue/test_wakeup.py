"""The agent is told of everything it waits for, and the thread that tells it ends when asked to."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from redis import Redis
from rq import Queue
from rq.command import send_shutdown_command
from rq.serializers import JSONSerializer

from dayfly.jobs.spec import JobSpec
from dayfly.queue.connection import connect
from dayfly.queue.producer import Producer
from dayfly.queue.wakeup import Kind, Wake, Wakeup

DEADLINE_SECONDS = 20.0

WaitFor = Callable[[Wakeup, Wake], None]


def test_a_submission_wakes(redis: Redis, producer: Producer, wait_for: WaitFor) -> None:
    """A job put into a queue is told of."""
    with Wakeup(redis, "w1", ["default", "other"]) as wakeup:
        wait_for(wakeup, Wake(Kind.WORK))  # it has begun to listen
        wakeup.take()
        producer.submit(JobSpec(queue="other"))
        wait_for(wakeup, Wake(Kind.WORK))


def test_a_plain_rq_producer_wakes_and_its_list_stays(redis: Redis, wait_for: WaitFor) -> None:
    """What RQ pushes is told of by the peek, which takes nothing away."""
    with Wakeup(redis, "w1", ["default", "ci"]) as wakeup:
        wait_for(wakeup, Wake(Kind.WORK))
        queue = Queue("ci", connection=redis, serializer=JSONSerializer)
        jobs = [queue.enqueue("dayfly.execute", {"command": [str(number)]}) for number in range(3)]
        wait_for(wakeup, Wake(Kind.INTAKE, queue="ci"))
        wait_for(wakeup, Wake(Kind.INTAKE, queue="ci"))
        assert queue.job_ids == [job.id for job in jobs]


def test_shutdown_of_rq_drains(redis: Redis, wait_for: WaitFor) -> None:
    """RQ's shutdown command is passed on as a drain, and no process is signalled."""
    with Wakeup(redis, "w1", ["default"]) as wakeup:
        wait_for(wakeup, Wake(Kind.WORK))
        send_shutdown_command(redis, "w1")
        wait_for(wakeup, Wake(Kind.DRAIN))


def test_rubbish_on_the_channels_is_passed_over(redis: Redis, producer: Producer, wait_for: WaitFor) -> None:
    """Commands that are none do not end the thread."""
    with Wakeup(redis, "w1", ["default"]) as wakeup:
        wait_for(wakeup, Wake(Kind.WORK))
        for rubbish in (b"\xff", b"[]", b"{", b'{"command": 7}', b'{"command": "stop-job", "job_id": [1]}'):
            redis.publish("rq:pubsub:w1", rubbish)
        redis.publish("dayfly:worker:w1", "01HX")
        wait_for(wakeup, Wake(Kind.CANCEL, job_id="01HX"))


def test_close_leaves_nothing(redis: Redis, wait_for: WaitFor) -> None:
    """close() ends thread, connections and descriptors, in the middle of a blocking peek, and may be called twice."""
    wait_for_clients(redis, 1)
    before = set(os.listdir("/proc/self/fd"))
    wakeup = Wakeup(redis, "w1", ["default", "a", "b"])
    wait_for(wakeup, Wake(Kind.WORK))
    wakeup.close()
    wakeup.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "dayfly-wakeup"]
    assert set(os.listdir("/proc/self/fd")) <= before
    wait_for_clients(redis, 1)


def test_a_server_that_comes_back_is_heard_again(tmp_path: Path, valkey_program: str, wait_for: WaitFor) -> None:
    """The thread outlives its server and listens to the next one."""
    socket = tmp_path / "s"
    command = [valkey_program, "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path), "--save", ""]
    redis = connect(f"unix://{socket}")
    server = _start(command)
    try:
        with Wakeup(redis, "w1", ["default"]) as wakeup:
            wait_for(wakeup, Wake(Kind.WORK))
            server.kill()
            server.communicate()
            server = _start(command)
            while wakeup.take():
                pass
            wait_for(wakeup, Wake(Kind.WORK))
            Queue("default", connection=redis, serializer=JSONSerializer).enqueue("dayfly.execute", {})
            wait_for(wakeup, Wake(Kind.INTAKE, queue="default"))
    finally:
        server.kill()
        server.communicate()
        redis.close()


def wait_for_clients(redis: Redis, count: int) -> None:
    """Until the server has that many connections: it sees a closed one a moment later."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(redis.client_list()) > count:
        assert time.monotonic() < deadline


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert server.stdout is not None
    for line in server.stdout:
        if b"Ready to accept connections" in line:
            return server
    raise AssertionError("the server did not start")
