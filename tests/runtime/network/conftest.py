"""Containers on the bridge of a home of the test's own; see tests/plugins/network_world.py for its network."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.container import Container, Host
from dayfly.runtime.network.refused import Refused
from dayfly.runtime.network.wire import Wire
from dayfly.runtime.shape import BridgeUse, ContainerPlan, Process, Shape


@pytest.fixture
def network_requests(start_network: Callable[..., int], tmp_path: Path) -> int:
    return start_network(tmp_path / "h")


@pytest.fixture
def shape(shape: Shape) -> Shape:
    return replace(shape, network="bridge", bridge=BridgeUse())


@dataclass(frozen=True)
class Ended:
    """What a job on the bridge printed, where it was, and what was refused to it."""

    stdout: str
    wire: Wire
    refused: Refused | None

    @property
    def answers(self) -> dict[str, str]:
        """Of a program that prints a line for each target: the target, and what came of it."""
        return dict(line.split(" ", 1) for line in self.stdout.splitlines())


@pytest.fixture
def running(host: Host, shape: Shape) -> Callable[..., AbstractContextManager[Container]]:
    """`with running("cat", "/etc/hosts", user="1000") as container:` on the bridge, discarded in the end."""

    @contextmanager
    def start(
        *argv: str, user: str = "", stdin: str | None = None, neighbours: tuple[str, ...] = (), shape: Shape = shape
    ) -> Iterator[Container]:
        container = Container.prepare(host, shape, os.urandom(8).hex())
        try:
            process = Process(argv=argv, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, user=user, stdin=stdin)
            plan = ContainerPlan(shape=shape, process=process, neighbours=neighbours)
            assert container.start(plan, signal.SIGTERM) is None
            yield container
        finally:
            container.discard()

    return start


@pytest.fixture
def run(running: Callable[..., Any], shape: Shape) -> Callable[..., Ended]:
    """`run("python3", "-c", "…", bridge=BridgeUse(…))`: to the end, and discarded."""

    def run(*argv: str, user: str = "", bridge: BridgeUse = BridgeUse()) -> Ended:  # noqa: B008 - frozen
        with running(*argv, user=user, shape=replace(shape, bridge=bridge)) as container:
            end = container.init.end()
            container.init.reap()
            stdout, stderr = _read(container.init.stdout), _read(container.init.stderr)
            assert (end.exit_code, stderr) == (0, ""), stderr
            assert container.wire is not None
            return Ended(stdout, container.wire, container.wire.refused())

    return run


@pytest.fixture
def read_all() -> Callable[[int], str]:
    """Everything in a pipe whose writers are gone."""
    return _read


def _read(fd: int) -> str:
    """Everything in a pipe whose writers are gone."""
    with open(os.dup(fd), "rb") as pipe:
        return pipe.read().decode()
