"""Ports of the host that lead to a job on the bridge."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from network_world import World

from dayfly.jobs.errors import HostError
from dayfly.jobs.ports import PublishedPort
from dayfly.runtime.network import nft, published
from dayfly.runtime.network.published import PortInUseError, entries

pytestmark = [pytest.mark.kernel, pytest.mark.host_root("the host's ports are not its to give")]

Running = Callable[..., Any]


def test_a_published_port_leads_to_the_job(running: Running, world: World) -> None:
    """A port of the host leads to one of the job, from the host itself and from beyond, until it is withdrawn."""
    program = """
import socket
listener = socket.create_server(("", 5432), family=socket.AF_INET6, dualstack_ipv6=True)
print("listens", flush=True)
while True:
    listener.accept()[0].send(b"served")
"""
    port = PublishedPort(15432, 5432)
    with running("python3", "-c", program) as container:
        assert os.read(container.init.stdout, 16) == b"listens\n"
        wire = container.wire
        assert wire is not None
        with wire.published([port]):
            with pytest.raises(PortInUseError, match=r"15432:5432/tcp: Address already in use"), wire.published([port]):
                pass
            assert _served("192.0.2.2") == b"served"
            assert world.fetch("192.0.2.2", 15432) == "served"
            assert world.fetch("fd77::2", 15432) == "served"
        assert list(entries(wire.table)) == []
        socket.create_server(("", 15432)).close()  # it is free again


def test_a_published_port_of_a_killed_job_leads_nowhere(running: Running, in_child: Any) -> None:
    """Its entry goes with its link, and is in nobody's way who publishes the port before that."""
    port = PublishedPort(15432, 5432)
    kept = []
    with running("sleep", "100") as container:
        wire = container.wire
        assert wire is not None

        def publish_and_die() -> str:
            kept.append(wire.published([port]))
            kept[0].__enter__()
            return "published"

        assert in_child(publish_and_die) == "published"
        assert {each.address for each in entries(wire.table)} == set(wire.addresses)
        with wire.published([port]):
            pass
        assert list(entries(wire.table)) == []
        assert in_child(publish_and_die) == "published"
    deadline = time.monotonic() + 30
    while list(entries(wire.table)):
        assert time.monotonic() < deadline, "they are still there"
        select.select([], [], [], 0.01)


def test_an_entry_that_is_gone_already_is_no_fault(running: Running) -> None:
    """A firewall that was loaded anew has none: the job has its end all the same, and the port is free."""
    port = PublishedPort(15432, 5432)
    with running("sleep", "100") as container:
        wire = container.wire
        assert wire is not None
        with wire.published([port]):
            nft.apply("".join(f"delete {each.text(wire.table)}" for each in entries(wire.table)))
        with wire.published([port]):
            assert {each.address for each in entries(wire.table)} == set(wire.addresses)


def test_entries_that_cannot_be_taken_away_cost_no_job_its_end(
    running: Running, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The worker's log says so; whoever publishes the port next takes them away."""
    port = PublishedPort(15432, 5432)
    tried = []

    def fail(script: str) -> None:
        tried.append(script)
        raise HostError("set the network's policy", "nft")

    with running("sleep", "100") as container:
        wire = container.wire
        assert wire is not None
        with wire.published([port]), monkeypatch.context() as patch:
            patch.setattr(published.nft, "apply", fail)
            published._withdraw(wire.table, list(entries(wire.table)))
    assert len(tried) == 3
    assert "cannot take away a port that was published: cannot set the network's policy" in capfd.readouterr().err


def _served(address: str, timeout: float = 20) -> bytes:
    with socket.create_connection((address, 15432), timeout=timeout) as connection:
        return connection.recv(16)
