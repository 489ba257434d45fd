"""What was meant for one job must not reach the next one that has its address: N3."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from network_world import INTERNET4, PORT, TAG, World

from dayfly.runtime import syscalls
from dayfly.runtime.network import conntrack
from dayfly.runtime.network.bridge import Bridge, take_down
from dayfly.runtime.network.links import Plug
from dayfly.runtime.network.settings import NetworkSettings

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.host_root("the same bridge, in a namespace into which the test does not look"),
]

_JOBS = 1000
_SUBNET = "10.77.7.0/24"
_PLACES = 253
_OWN_PORT = 7000


@pytest.fixture
def bridge(world: World, nothing_left: None, tmp_path: Path) -> Iterator[Bridge]:
    (tmp_path / "run").mkdir()
    yield Bridge(str(tmp_path), NetworkSettings(tag=TAG, subnet4=_SUBNET, dns=("10.9.9.53",)))
    take_down(TAG)


def test_n3_a_late_answer_reaches_no_other_job(
    bridge: Bridge, world: World, tally: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer to job n by way of NAT, sent when job n + 1 has the address and listens on the very port."""
    with _job(bridge, 0) as first:
        _echo(first, "first")
    with _job(bridge, 0) as second:
        held = _late(world, second)
    monkeypatch.setattr(conntrack, "forget", lambda is_stale: 0)
    with _job(bridge, 0) as third:
        _echo(third, "third")
    with _job(bridge, 0) as fourth:
        bit = _late(world, fourth)
    tally.judge(held=held == [], bit=bit == [b"late"], seen=(held, bit))


@pytest.mark.slow
def test_n3_a_thousand_jobs_recycle_a_range_of_256(bridge: Bridge, world: World) -> None:
    """Each place is used again and again; no job hears of one before it, though every one of them is answered late.

    The control is the one above."""
    strays = []
    for number in range(_JOBS):
        with _job(bridge, number % _PLACES) as job:
            if number >= _PLACES:
                strays += _late(world, job, ago=_PLACES)
            _echo(job, f"job {number}")
    assert strays == []


@contextmanager
def _job(bridge: Bridge, index: int) -> Iterator[socket.socket]:
    """A namespace on the bridge, and a socket in it; it ends as that of a job does."""
    holder = syscalls.PausedProcess(syscalls.CLONE_NEWNET)
    try:
        namespace = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            bridge.plug(Plug(index), None, namespace)
            with _socket_in(namespace) as found:
                yield found
        finally:
            os.close(namespace)
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        os.waitpid(holder.pid, 0)


def _socket_in(namespace: int) -> socket.socket:
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.setns(namespace, syscalls.CLONE_NEWNET)
    try:
        found = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    finally:
        syscalls.setns(own, syscalls.CLONE_NEWNET)
        os.close(own)
    found.bind(("", _OWN_PORT))
    found.settimeout(30)
    return found


def _echo(job: socket.socket, text: str) -> list[bytes]:
    """Send to the world and wait for its echo; whatever else comes before it."""
    job.sendto(text.encode(), (INTERNET4, PORT))
    others = []
    while (got := job.recv(64)) != text.encode():
        others.append(got)
    return others


def _late(world: World, job: socket.socket, ago: int = 1) -> list[bytes]:
    """Have the world answer the job that had this place before; what of it comes here. An echo shows that all came."""
    *_, sender, port, _ = world.seen()[-ago]
    world.send(INTERNET4, sender, port, "late")
    job.sendto(b"mark", ("5.6.7.9", PORT))
    others = []
    while (got := job.recv(64)) != b"mark":
        others.append(got)
    return others
