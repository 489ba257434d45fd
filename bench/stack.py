"""A server of the bench's own, and workers of Dayfly and of RQ that serve it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import redis

from dayfly.client import Client
from dayfly.valkey import command, find_program, is_ready

_DEADLINE_SECONDS = 60.0


class Stack(AbstractContextManager["Stack"]):
    """The server as the embedded stack runs it: appended to a file, synced each second."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        socket = directory / "s"
        self.url = f"unix://{socket}"
        arguments = command(find_program(), unix_socket=socket, directory=directory)
        self._server = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not is_ready(socket):
            if time.monotonic() > deadline or self._server.poll() is not None:
                raise RuntimeError("the bench's server did not start")
            select.select([], [], [], 0.02)
        os.environ["DAYFLY_HOME"] = str(directory / "home")
        os.environ["DAYFLY_NETWORK_BRIDGE"] = "false"  # network.py measures it, in a namespace of its own
        self.redis = redis.Redis.from_url(self.url)

    def __exit__(self, *_: object) -> None:
        self.redis.close()
        self._server.terminate()
        self._server.wait(_DEADLINE_SECONDS)

    def client(self) -> Client:
        return Client(self.url)

    @contextmanager
    def dayfly_worker(self, slots: int) -> Iterator[int]:
        """`dayfly worker`; yields its pid once it has registered."""
        arguments = ["worker", "--slots", str(slots), "--url", self.url]
        with self._process([sys.executable, "-m", "dayfly", *arguments]) as pid:
            self._await_worker()
            yield pid

    @contextmanager
    def rq_worker(self, kind: str, queue: str) -> Iterator[int]:
        """RQ's own worker of that class, on one queue, until it is empty."""
        program = (
            "import redis, rq, sys, logging; logging.disable(logging.INFO);"
            f"c = redis.Redis.from_url({self.url!r});"
            f"rq.{kind}([rq.Queue({queue!r}, connection=c)], connection=c).work(burst=True, logging_level='WARNING')"
        )
        with self._process([sys.executable, "-c", program]) as pid:
            yield pid

    @contextmanager
    def _process(self, arguments: list[str]) -> Iterator[int]:
        log = (self.directory / "worker.log").open("ab")
        process = subprocess.Popen(arguments, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(_DEADLINE_SECONDS)
            log.close()

    def _await_worker(self) -> None:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not self.redis.scard("rq:workers"):
            if time.monotonic() > deadline:
                raise RuntimeError((self.directory / "worker.log").read_text()[-2000:])
            select.select([], [], [], 0.02)
