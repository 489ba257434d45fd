"""`dayfly run` and the network: a bridge where there is one, one line where there is none, and nothing left of it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from network_world import INTERNET4, METADATA4, PORT, RESOLVER, World, nft_tables

from dayfly.worker import joblock

pytestmark = pytest.mark.kernel

_CONNECT = "import socket, sys; print(socket.create_connection((sys.argv[1], {port}), 30).recv(9).decode())"
_PROGRAM = ("python3", "-c", _CONNECT.format(port=PORT))


@pytest.fixture
def bridged(world: World, host: Any) -> Any:
    """A host in a network of its own, whose worker may give jobs a bridge; not started yet."""
    host.environment |= {"DAYFLY_NETWORK_BRIDGE": "true", "DAYFLY_NETWORK_DNS": RESOLVER}
    return host


def test_run_reaches_the_internet_without_being_told_to(bridged: Any) -> None:
    """And submit, of the same command, does not: a document that states nothing has no network."""
    bridged.start()
    ran = bridged.dayfly("run", "--no-dir", "--", *_PROGRAM, INTERNET4)
    assert (ran.returncode, ran.stdout) == (0, "hello\n"), ran
    assert "network" not in ran.stderr
    submitted = bridged.dayfly("submit", "--", *_PROGRAM, INTERNET4)
    waited = bridged.dayfly("wait", submitted.stdout.strip())
    assert waited.returncode == 1


def test_run_says_what_was_refused(bridged: Any) -> None:
    """In its few lines at the end, and only there."""
    bridged.start()
    ran = bridged.dayfly("run", "--no-dir", "--", *_PROGRAM, METADATA4)
    assert ran.returncode == 1
    assert f"dayfly: network: 1 connection to {METADATA4} refused by policy\n" in ran.stderr


def test_run_says_in_one_line_that_there_is_no_bridge(host: Any) -> None:
    """The job runs without a network; one that demands it is rejected, and a file that says none is left in peace."""
    host.start()
    ran = host.dayfly("run", "--no-dir", "--", "true")
    assert ran.returncode == 0
    assert [line for line in ran.stderr.splitlines() if "network" in line] == [
        "dayfly: network: none, for this worker has no bridge: its operator has switched it off ([network] bridge)"
    ]
    document = host.here / "job.yaml"
    document.write_text("network: none\ncommand: ['true']\n")
    assert "network" not in host.dayfly("run", "--no-dir", "-f", "job.yaml").stderr
    rejected = host.dayfly("run", "--no-dir", "--network", "bridge", "--", "true")
    assert rejected.returncode == 125
    assert "network: this worker has no bridge" in rejected.stderr


def test_what_changed_holds_no_files_of_ours(bridged: Any) -> None:
    """resolv.conf and hosts are given to the job, not written by it."""
    bridged.start()
    script = ["sh", "-c", "grep -c . /etc/resolv.conf /etc/hosts; echo x > /etc/mine; echo y > /workspace/yours"]
    ran = bridged.dayfly("run", "--no-dir", "--changed", "--out", "got", "--", *script)
    assert ran.returncode == 0, ran
    got = bridged.here / "got"
    assert sorted(str(path.relative_to(got)) for path in got.rglob("*") if path.is_file()) == [
        "_root/etc/mine",
        "yours",
    ]


@pytest.fixture
def embedded(world: World, home: Path, host: Any) -> Iterator[Any]:
    """The same without a server of its own: the embedded stack, brought down in the end."""
    host.environment |= {"DAYFLY_NETWORK_BRIDGE": "true", "DAYFLY_NETWORK_DNS": RESOLVER}
    del host.environment["DAYFLY_URL"]
    yield host
    host.dayfly("run", "--no-dir", "--network", "none", "--", "true")  # a worker that sweeps what a killed one left
    host.dayfly("down")


def test_down_takes_the_bridge_of_a_killed_worker_away(embedded: Any, home: Path) -> None:
    """SIGKILL leaves bridge and tables; `dayfly down` finds them by their name."""
    ran = embedded.dayfly("run", "--no-dir", "--", *_PROGRAM, INTERNET4)
    assert (ran.returncode, ran.stdout) == (0, "hello\n"), ran
    worker = _holder(home / "run" / "worker.lock")
    os.kill(worker, signal.SIGKILL)
    embedded.until(lambda: not any(joblock.holder(str(each)) for each in (home / "keepers").glob("*") if each.is_dir()))
    assert "dayfly-" in nft_tables()
    assert embedded.dayfly("down").returncode == 0
    assert nft_tables() == ""
    assert {name for _, name in socket.if_nameindex()} == {"lo", "up0"}


def _holder(lock: Path) -> int:
    """The process that has the file open: the embedded worker keeps it as its sign of life."""
    inode = lock.stat().st_ino
    for entry in Path("/proc").glob("[0-9]*/fd/3"):
        try:
            if entry.stat().st_ino == inode:
                return int(entry.parts[2])
        except OSError:  # it ended while we looked
            continue
    raise AssertionError(f"nobody holds {lock}")
