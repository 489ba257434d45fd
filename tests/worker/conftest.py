"""A real agent on a real Valkey, in a process of its own that a test may kill."""

import contextlib
import glob
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.door import read_job
from dayfly.jobs.result import Result
from dayfly.queue.connection import connect
from dayfly.queue.logs import LogStream
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records
from dayfly.runtime import syscalls
from dayfly.runtime.idrange import own_id_map
from dayfly.worker import joblock
from dayfly.worker.settings import WorkerSettings
from dayfly.worker.store import FileStore

DEADLINE_SECONDS = 60.0

_PROGRAM = """
import pickle
import sys
from pathlib import Path
from dayfly.jobs.spec import PullPolicy
from dayfly.worker.agent import serve
from dayfly.worker.settings import Allowed, Images, Networking, WorkerSettings
from dayfly.worker.stopping import signals
allow, images = Allowed(None, None, True, image_dirs=None), Images(pull=PullPolicy.NEVER)
fields = {{"allow": allow, "images": images, **pickle.loads({fields!r})}}
settings = WorkerSettings(home=Path({home!r}), url={url!r}, name="w", **fields)
with signals() as told:
    is_idle = serve(settings, told)
sys.exit(7 if is_idle else 0)
"""


@dataclass
class Worker:
    """One agent after the other on one home."""

    home: Path
    url: str
    fields: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = _PROGRAM.format(fields=pickle.dumps(self.fields), home=str(self.home), url=self.url)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-c", program], stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """SIGKILL, and wait until the agent is gone."""
        self.process.kill()
        self.process.wait(DEADLINE_SECONDS)

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(DEADLINE_SECONDS)

    def stop(self) -> None:
        """Have it put back what runs, and leave."""
        if self.process is None or self.process.poll() is not None:
            return
        self.await_start()  # before that a signal has its default meaning, and after the end again
        ends = self.count_events("worker ends")
        for _ in range(3):
            if self.count_events("worker ends") == ends:
                self.tell(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self.process.wait(2.0) == 0
                return
        assert self.wait() == 0

    @property
    def log_path(self) -> Path:
        return self.home.with_name("agent.log")

    def events(self) -> list[dict[str, Any]]:
        """What the agents have logged so far, without a line that is still being written."""
        lines = self.log_path.read_text().splitlines(keepends=True) if self.log_path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n") and line.startswith("{")]

    def count_events(self, name: str) -> int:
        return sum(event["event"] == name for event in self.events())

    def await_event(self, name: str, count: int = 1) -> None:
        until(lambda: self.count_events(name) >= count or self.process.poll() is not None)

    def await_start(self) -> None:
        """Until the agent that was started last serves."""
        pid = self.process.pid
        until(lambda: self.process.poll() is not None or any(event.get("pid") == pid for event in self.events()))

    def keeper_of(self, job_id: str) -> int | None:
        return joblock.holder(str(self.home / "jobs" / job_id))

    @property
    def store(self) -> FileStore:
        directory = self.fields.get("store_directory")
        return FileStore(WorkerSettings(self.home, self.url, "w", store_directory=directory).store)


@dataclass
class Queue:
    """A producer's view."""

    producer: Producer
    records: Records
    stream: LogStream

    def submit(self, **document: Any) -> str:
        return self.producer.submit(read_job({"image": "host", **document}))

    def result(self, job_id: str) -> Result:
        record = self.records.wait([job_id], DEADLINE_SECONDS)[0]
        assert record.result is not None
        return record.result

    def log(self, job_id: str) -> bytes:
        """stdout as followers get it."""
        return b"".join(line.data for line in self.stream.follow(job_id) if line.stream == 1)

    def await_state(self, job_id: str, *states: str) -> None:
        until(lambda: self.records.get(job_id).state in states)

    def await_discarded(self, job_id: str) -> None:
        until(lambda: self.result(job_id).timings.discarded_at is not None)


@pytest.fixture
def queue(valkey: str) -> Iterator[Queue]:
    redis = connect(valkey)
    yield Queue(Producer(redis), Records(redis), LogStream(redis))
    redis.close()


@pytest.fixture
def worker(
    request: pytest.FixtureRequest, home: Path, valkey: str, nothing_left: None, lacks: Any, need_tool: Any
) -> Iterator[Worker]:
    """Two slots of one cpu, 256 MiB and 256 MiB of disk; not started yet."""
    if os.geteuid() != 0 and own_id_map() is None:
        lacks("root")
    home.mkdir(mode=0o700, exist_ok=True)
    fields: dict[str, Any] = {"slots": 2, "cpus": 2.0, "memory_bytes": 512 << 20, "disk_bytes": 512 << 20}
    runtime = getattr(request, "param", "dayfly")
    if runtime != "dayfly":
        fields["oci_runtime"] = need_tool(runtime)
    worker = Worker(home, valkey, fields)
    yield worker
    worker.stop()
    _await_keepers(home)
    with contextlib.suppress(OSError):
        for directory in glob.glob(f"/sys/fs/cgroup/*/dayfly-{WorkerSettings(home, valkey, 'w').cgroup_tag}"):
            os.rmdir(directory)


@pytest.fixture
def small_home(home: Path, nothing_left: None, lacks: Any) -> Iterator[Path]:
    """DAYFLY_HOME lies on a file system of 48 MiB of its own."""
    if os.geteuid() != 0 and own_id_map() is None:
        lacks("root")
    home.mkdir(mode=0o700)
    syscalls.mount("tmpfs", str(home), "tmpfs", 0, "size=48m,mode=700")  # mount(8) wants uid 0, whatever it may do
    yield home
    syscalls.umount2(str(home))


@pytest.fixture
def await_true() -> Any:
    """until(), for tests."""
    return until


def until(is_true: Any) -> None:
    """Look until something is true, with a deadline: not all of it is told to anybody."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_true():
        assert time.monotonic() < deadline, "it did not become true in time"
        select.select([], [], [], 0.002)


def _await_keepers(home: Path) -> None:
    """Wait for keepers that a killed agent left, which end by themselves."""
    for lock in [*home.glob("jobs/*/lock"), *home.glob("keepers/*/lock")]:
        keeper = joblock.follow(str(lock.parent))
        if keeper is not None:
            select.select([keeper[1]], [], [], DEADLINE_SECONDS)
            os.close(keeper[1])
