"""rq-dashboard shows ours rightly, and a look at it changes nothing."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from dayfly.jobs.demand import Capacity
from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import Outcome
from dayfly.queue.consumer import Consumer
from dayfly.queue.producer import Producer

DEADLINE_SECONDS = 20.0
CLASS = "default@-:-:-"

pytestmark = pytest.mark.timeout(60)

Look = Callable[[str], Any]


@pytest.fixture
def dashboard(valkey: str, lacks: Callable[[str], NoReturn]) -> Iterator[Look]:
    """`dashboard("workers.json")`: what the dashboard, started as users do with `-j`, says there."""
    if importlib.util.find_spec("rq_dashboard") is None:
        lacks("rq-dashboard")
    code = "import sys, warnings; warnings.simplefilter('ignore'); from rq_dashboard.cli import main; main()"
    options = ["-j", "-v", "-b", "127.0.0.1", "-p", "0", "-u", valkey]
    server = subprocess.Popen([sys.executable, "-c", code, *options], stderr=subprocess.STDOUT, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        found = None
        while found is None:
            line = server.stdout.readline().decode()
            assert line, "the dashboard did not start"
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
        address = found.group()

        def look(page: str) -> Any:
            with urllib.request.urlopen(f"{address}/0/data/{page}", timeout=DEADLINE_SECONDS) as answer:
                return json.load(answer)

        yield look
    finally:
        server.kill()
        server.communicate()


def test_the_dashboard_shows_what_is_there(
    redis: Redis,
    dashboard: Look,
    producer: Producer,
    consumer: Consumer,
    offer: Capacity,
    ended: Callable[..., Result],
) -> None:
    """Queues, jobs of every registry, results, workers; a running job whose lease has passed is left alone."""
    good, bad, running, queued = (producer.submit(JobSpec(name=name)) for name in ("good", "bad", "running", "queued"))
    for outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
        claim = consumer.claim(offer)
        assert claim is not None
        assert consumer.finish(claim, ended(claim, outcome))
    held = consumer.claim(offer)
    assert held is not None
    redis.zadd("dayfly:leases", {held.member: 1})

    counts = {each["name"]: each for each in dashboard("queues.json")["queues"]}[CLASS]
    assert (counts["count"], counts["failed_job_registry_count"]) == (1, 1)
    assert (counts["started_job_registry_count"], counts["finished_job_registry_count"]) == (1, 1)
    shown = {name: dashboard(f"jobs/{CLASS}/{name}/10/asc/1.json") for name in ("queued", "started", "failed")}
    assert {name: [job["id"] for job in page["jobs"]] for name, page in shown.items()} == {
        "queued": [queued],
        "started": [running],
        "failed": [bad],
    }
    job = dashboard(f"job/{good}.json")
    assert (job["status"], job["origin"], job["description"]) == ("finished", CLASS, "good")
    assert job["result"]["outcome"] == "succeeded"
    assert dashboard(f"job/{bad}.json")["exc_info"] == "failed with exit code 1"
    assert consumer.finish(held, ended(held))
    (worker,) = dashboard("workers.json")["workers"]
    assert (worker["name"], worker["state"], worker["current_job"]) == ("w1", "idle", "idle")
    assert (worker["successful_job_count"], worker["failed_job_count"]) == (2, 1)


def test_the_list_of_workers_fails_for_us_where_it_fails_for_rq(
    redis: Redis, dashboard: Look, producer: Producer, consumer: Consumer, offer: Capacity
) -> None:
    """rq-dashboard 0.9 reads a worker's current job as a pickle, `-j` or not: RQ's own JSON jobs break that page too.

    When this test fails rq-dashboard has been mended, and the README's line about it can go.
    """
    queue = Queue("plain", connection=redis, serializer=JSONSerializer)
    worker = SimpleWorker([queue], connection=redis, name="rq", serializer=JSONSerializer)
    worker.register_birth()
    worker.prepare_execution(queue.enqueue("operator.add", 1, 2))
    with pytest.raises(urllib.error.HTTPError, match="500"):
        dashboard("workers.json")
    redis.flushall()
    consumer.register()
    producer.submit(JobSpec())
    assert consumer.claim(offer) is not None
    with pytest.raises(urllib.error.HTTPError, match="500"):
        dashboard("workers.json")
