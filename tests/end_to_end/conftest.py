"""A host for whole stories: a real `dayfly worker`, a real Valkey, the command and the Python API beside it."""

from __future__ import annotations

import contextlib
import glob
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dayfly import Client
from dayfly.job import Job
from dayfly.worker import joblock
from dayfly.worker.settings import WorkerSettings

DEADLINE_SECONDS = 120.0


@dataclass
class Host:
    """One machine with a home of its own; `flags` are those of `dayfly worker`, which a test starts."""

    home: Path
    here: Path
    url: str
    flags: dict[str, str]
    environment: dict[str, str]
    worker: subprocess.Popen[bytes] | None = None
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(self.url)

    # The worker

    def start(self, under: Sequence[str] = ()) -> None:
        """`under`: what the command line begins with; it must execute the rest."""
        flags = [part for name, value in self.flags.items() for part in (f"--{name}", value)]
        with open(self.worker_log, "ab") as log:
            self.worker = self.spawn("worker", *flags, under=under, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill_worker(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.worker is not None
        self.worker.kill()
        self.worker.wait(DEADLINE_SECONDS)

    def stop(self) -> None:
        """Have it put back what runs, and leave."""
        if self.worker is None or self.worker.poll() is not None:
            return
        self.await_worker()
        for _ in range(3):
            self.worker.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                assert self.worker.wait(5.0) == 0, self.worker_log.read_text()
                return
        assert self.worker.wait(DEADLINE_SECONDS) == 0

    def await_worker(self) -> None:
        """Until the worker that was started last serves; before that a signal simply ends it."""
        assert self.worker is not None
        started = f'"pid": {self.worker.pid}, '
        self.until(lambda: started in self.worker_log.read_text() or self.worker.poll() is not None)

    @property
    def worker_log(self) -> Path:
        return self.home.with_name("worker.log")

    def keeper_of(self, job_id: str) -> int | None:
        """The pid of the keeper that runs a job."""
        return joblock.holder(str(self.home / "jobs" / job_id))

    # Its users

    def dayfly(self, *arguments: str, timeout: float = DEADLINE_SECONDS, **options: Any) -> Any:
        """The command, to its end: a CompletedProcess with both streams as text."""
        options = {"cwd": self.here, "env": self.environment, "stdin": subprocess.DEVNULL, **options}
        command = [sys.executable, "-m", "dayfly", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=timeout, **options)

    def spawn(self, *arguments: str, under: Sequence[str] = (), **options: Any) -> subprocess.Popen[bytes]:
        options = {"cwd": self.here, "env": self.environment, **options}
        return subprocess.Popen([*under, sys.executable, "-m", "dayfly", *arguments], **options)

    def submit(self, **document: Any) -> Job:
        return self.client.submit(**document)

    def await_state(self, job: Job, *states: str) -> None:
        self.until(lambda: job.status().state in states)

    def until(self, is_true: Callable[[], Any], within_seconds: float = DEADLINE_SECONDS) -> None:
        """Look until something is true, with a deadline: not all of it is told to anybody."""
        deadline = time.monotonic() + within_seconds
        while not is_true():
            assert time.monotonic() < deadline, "it did not become true in time"
            select.select([], [], [], 0.005)

    # What is left

    def leftovers(self) -> list[str]:
        """Jobs, keepers and rubbish in the home, and control groups of this home."""
        paths = [path for name in ("jobs", "keepers", "disks", "trash") for path in (self.home / name).glob("*")]
        left = [str(path) for path in paths if path.name != "layers"]
        return left + self.control_groups()

    def control_groups(self) -> list[str]:
        """This home's directory in each hierarchy of control groups."""
        tag = WorkerSettings(self.home, self.url, "w").cgroup_tag
        return glob.glob(f"/sys/fs/cgroup/**/dayfly-{tag}", recursive=True)


@pytest.fixture
def host(home: Path, valkey: str, nothing_left: None, tmp_path: Path, lacks: Any) -> Iterator[Host]:
    """Two slots of one cpu, 512 MiB and 512 MiB of disk; nothing is left of it at the end."""
    if os.geteuid() != 0:
        lacks("root")
    here = tmp_path / "here"
    here.mkdir()
    flags = {"name": "w", "slots": "2", "cpus": "2", "memory": "1G", "disk": "1G"}
    allowed = {"DAYFLY_ALLOW_MOUNTS": str(tmp_path), "DAYFLY_ALLOW_DIRS": str(tmp_path), "DAYFLY_URL": valkey}
    host = Host(home, here, valkey, flags, {**os.environ, **allowed})
    try:
        yield host
    finally:
        host.stop()
        host.client.close()
    _await_keepers(home)
    assert not host.leftovers()


def _await_keepers(home: Path) -> None:
    """Wait for keepers that a killed worker left, which end by themselves."""
    for lock in [*home.glob("jobs/*/lock"), *home.glob("keepers/*/lock")]:
        keeper = joblock.follow(str(lock.parent))
        if keeper is not None:
            select.select([keeper[1]], [], [], DEADLINE_SECONDS)
            os.close(keeper[1])
