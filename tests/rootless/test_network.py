"""The bridge of an ordinary user's worker, in a namespace of the user's own that pasta joins to the host's network."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from network_world import INTERNET4, INTERNET6, METADATA4, PORT, RESOLVER, World

pytestmark = [pytest.mark.kernel, pytest.mark.host_root("it makes the ordinary user itself")]

_DEADLINE_SECONDS = 60.0
_HOST4, _HOST6 = "192.0.2.2", "fd77::2"  # as network_world.py has them
_REACH = """
import socket, sys
for address, port in (each.rsplit(",", 1) for each in sys.argv[1:]):
    try:
        with socket.create_connection((address, int(port)), timeout=10) as server:
            print(server.recv(9).decode())
    except OSError as error:
        print(error.strerror)
"""


@pytest.fixture
def bridged(user: Any, world: World, need_tool: Callable[[str], str]) -> Any:
    """The user, on a host whose network is the test's own."""
    need_tool("pasta")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    user.environment["DAYFLY_NETWORK_DNS"] = RESOLVER
    return user


def _run(user: Any, *targets: tuple[str, int], network: str = "bridge") -> Any:
    """What a job heard of each target; `network` of its result is beside it as `said`."""
    words = [f"{address},{port}" for address, port in targets]
    flags = ("run", "--no-dir", "--network", network, "--result", "result")
    done = user.dayfly(*flags, "--", "python3", "-c", _REACH, *words)
    assert done.returncode == 0, done.stderr
    done.said = json.loads((user.home / "result").read_text())["network"]
    return done


def _processes(name: str) -> list[int]:
    """Those of this name in the network namespace of this test."""
    own = os.readlink("/proc/self/ns/net")
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if name in (path / "cmdline").read_text() and os.readlink(path / "ns/net") == own:
                found.append(int(path.name))
        except OSError:  # it ended while we looked
            continue
    return found


def test_a_job_reaches_the_internet_and_nothing_of_the_host(bridged: Any) -> None:
    """Both protocols, names; each address of the host is refused and counted, though pasta itself could reach it."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = listener.getsockname()[1]
        outer = [(INTERNET4, PORT), (INTERNET6, PORT), ("example.org", PORT)]
        inner = [(_HOST4, port), (_HOST6, port), (METADATA4, PORT)]
        done = _run(bridged, *outer, *inner)
    assert done.stdout.splitlines() == ["hello"] * 3 + ["Connection refused"] * 3
    assert (done.said["mode"], done.said["refused_connections"]) == ("bridge", 3)
    assert {each["address"] for each in done.said["refused"]} == {_HOST4, _HOST6, METADATA4}


def test_an_address_is_refused_as_soon_as_it_is_the_hosts(bridged: Any) -> None:
    """To a job that runs and has reached it before: the policy follows the host, though it stands elsewhere."""
    watch = f"""
import socket, time
said = None
while said != "Connection refused":
    try:
        with socket.create_connection(("{INTERNET4}", {PORT}), timeout=10) as server:
            now = server.recv(9).decode()
    except OSError as error:
        now = error.strerror
    if now != said:
        print(said := now, flush=True)
    time.sleep(0.05)
"""
    with bridged.start(
        "run", "--no-dir", "--network", "bridge", "--timeout", "60", "--", "python3", "-c", watch
    ) as job:
        assert job.stdout.readline() == "hello\n"
        subprocess.run(["ip", "addr", "add", f"{INTERNET4}/32", "dev", "lo"], check=True)
        assert job.stdout.readline() == "Connection refused\n"
        assert job.wait(_DEADLINE_SECONDS) == 0


def test_pasta_that_dies_is_started_again(bridged: Any) -> None:
    """And everything has ended with the worker: no process, no link, no table on the host."""
    target = (INTERNET4, PORT)
    assert _run(bridged, target).stdout == "hello\n"
    (pasta,) = _processes("pasta")
    os.kill(pasta, signal.SIGKILL)
    assert _run(bridged, target).stdout in ("hello\n", "Network is unreachable\n")
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while _processes("pasta") in ([], [pasta]):
        assert time.monotonic() < deadline, "it is not started again"
        select.select([], [], [], 0.01)
    assert _run(bridged, target).stdout == "hello\n"
    assert bridged.dayfly("down", "--now").returncode == 0
    assert (_processes("pasta"), _processes("dayfly: uplink")) == ([], [])
    assert {name for _, name in socket.if_nameindex()} == {"lo", "up0"}


def test_a_user_whose_host_has_no_way_for_it_is_told(bridged: Any) -> None:
    """No default route: an `auto` job runs without a network and says why, one that demands a bridge is rejected."""
    subprocess.run(["ip", "route", "del", "default"], check=True)
    subprocess.run(["ip", "-6", "route", "del", "default"], check=True)
    done = _run(bridged, (INTERNET4, PORT), network="auto")
    assert done.stdout == "Network is unreachable\n"
    assert "dayfly: network: none, for this worker has no bridge: cannot reach the host's network by" in done.stderr
    refused = bridged.dayfly("run", "--no-dir", "--network", "bridge", "--", "true")
    assert (refused.returncode, "has no bridge" in refused.stderr) == (125, True)
    found = {each["name"]: each for each in json.loads(bridged.dayfly("doctor", "--json").stdout)}
    assert found["bridge"]["verdict"] == "warning"
