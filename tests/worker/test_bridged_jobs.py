"""Jobs on the bridge of a real agent: what their results tell, who may be killed, and what is left in the end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from network_world import INTERNET4, METADATA4, PORT, PRIVATE4, RESOLVER, World, nft_tables

from dayfly.jobs.verdict import explain, summary
from dayfly.runtime.network.names import table_name
from dayfly.runtime.network.published import entries
from dayfly.worker.settings import Allowed, Networking, WorkerSettings

pytestmark = pytest.mark.kernel

_CONNECT = f"""
import socket, sys
faults = 0
for target in sys.argv[1:]:
    try:
        socket.create_connection((target, {PORT}), 30).close()
    except OSError:
        faults += 1
sys.exit(faults)
"""
_WAIT = f"""
import os, socket, time
print("waits", flush=True)
while not os.path.exists("/go/on"): time.sleep(0.01)
print(socket.create_connection(("{INTERNET4}", {PORT}), 30).recv(9).decode(), flush=True)
"""


@pytest.fixture
def bridged(world: World, worker: Any) -> Any:
    """The worker of this test, in a network of its own, with a bridge for its jobs; not started yet."""
    worker.fields["network"] = Networking(bridge=True, dns=(RESOLVER,))
    return worker


def _connect(*targets: str) -> dict[str, Any]:
    return {"command": ["python3", "-c", _CONNECT, *targets], "network": "auto"}


def test_a_result_tells_of_the_bridge_and_nothing_is_left_of_it(bridged: Any, queue: Any) -> None:
    """Mode and addresses; when the worker has ended, no link, no table and no switch tells that it was there."""
    bridged.start()
    result = queue.result(queue.submit(**_connect(INTERNET4)))
    assert result.is_success
    assert result.network.mode == "bridge"
    assert [":" in address for address in result.network.addresses] == [False, True]
    assert result.network.refused_connections == 0
    assert "dayfly-" in nft_tables()
    bridged.stop()
    assert nft_tables() == ""
    assert {name for _, name in socket.if_nameindex()} == {"lo", "up0"}
    assert Path("/proc/sys/net/ipv4/conf/up0/forwarding").read_text() == "0\n"


def test_a_failed_jobs_few_lines_say_what_was_refused(bridged: Any, queue: Any) -> None:
    """ "3 connections to 169.254.169.254 refused by policy"."""
    bridged.start()
    result = queue.result(queue.submit(**_connect(METADATA4, METADATA4, METADATA4, PRIVATE4)))
    assert (result.exit_code, result.network.refused_connections) == (4, 4)
    lines = (
        f"network: 3 connections to {METADATA4} refused by policy",
        f"network: 1 connection to {PRIVATE4} refused by policy",
    )
    assert set(lines) <= set(summary(result))
    assert set(lines) <= set(explain(result))
    assert any(line.startswith("network: bridge, ") for line in explain(result))


def test_a_job_that_asks_for_no_network_starts_no_process_and_no_bridge(bridged: Any, queue: Any) -> None:
    """What a job does not ask for costs nothing."""
    bridged.start()
    result = queue.result(queue.submit(command=["true"]))
    assert (result.network.mode, result.network.addresses, result.network.why) == ("none", (), None)
    assert _network_processes() == []
    assert nft_tables() == ""


def test_a_job_and_its_network_outlive_the_agent(
    bridged: Any, queue: Any, await_true: Callable[..., None], home: Path
) -> None:
    """SIGKILL of the agent, and of launcher and network process with it; the next agent tells the job's end."""
    bridged.start()
    (home / "go").mkdir(parents=True, exist_ok=True)
    mounts = [{"source": str(home / "go"), "target": "/go"}]
    job = queue.submit(command=["python3", "-c", _WAIT], network="bridge", mounts=mounts)
    await_true(lambda: b"waits" in _log_of(home, job))
    bridged.kill()
    for pid in _network_processes():
        os.kill(pid, signal.SIGKILL)
    (home / "go" / "on").touch()
    bridged.start()
    result = queue.result(job)
    assert result.is_success, result
    assert b"hello" in queue.log(job)
    assert queue.result(queue.submit(**_connect(INTERNET4))).is_success
    bridged.stop()
    assert nft_tables() == ""


def _log_of(home: Path, job: str) -> bytes:
    log = home / "jobs" / job / "log"
    return log.read_bytes() if log.exists() else b""


def test_the_networks_process_is_started_again_when_it_dies(
    bridged: Any, queue: Any, await_true: Callable[..., None]
) -> None:
    """It holds nothing that the next one needs."""
    bridged.start()
    assert queue.result(queue.submit(**_connect(INTERNET4))).is_success
    killed = _network_processes()
    assert len(killed) == 1
    os.kill(killed[0], signal.SIGKILL)
    for _ in range(4):  # more than keepers stood ready
        assert queue.result(queue.submit(**_connect(INTERNET4))).is_success
    await_true(lambda: _network_processes() not in ([], killed))


def test_a_killed_keeper_leaves_no_link(bridged: Any, queue: Any, await_true: Callable[..., None]) -> None:
    """The veth pair goes with the namespace, that with the job."""
    bridged.start()
    job = queue.submit(command=["sleep", "1000"], network="bridge", retry=0)
    queue.await_state(job, "running")
    keeper = bridged.keeper_of(job)
    assert keeper is not None
    os.kill(keeper, signal.SIGKILL)
    assert queue.result(job).outcome == "lost"
    bridged.stop()
    await_true(lambda: {name for _, name in socket.if_nameindex()} == {"lo", "up0"})
    assert nft_tables() == ""


def _network_processes() -> list[int]:
    """Those that are in the network namespace of this test."""
    own, found = os.readlink("/proc/self/ns/net"), []
    for pid in (name for name in os.listdir("/proc") if name.isdigit()):
        try:
            is_one = Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"dayfly: network")
            if is_one and os.readlink(f"/proc/{pid}/ns/net") == own:
                found.append(int(pid))
        except OSError:  # it ended while we looked
            continue
    return found


def test_a_bridge_that_fails_holds_no_other_job_up(bridged: Any, queue: Any, home: Path) -> None:
    """A job that wants it is told why; the next one, which does not, is run."""
    bridged.start()
    assert queue.result(queue.submit(**_connect(INTERNET4))).is_success
    (home / "run/network.json").write_text("nonsense")
    killed = _network_processes()
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    outcomes: list[str] = []
    while "rejected" not in outcomes:  # some keepers stood ready, and have the network that they were given
        assert len(outcomes) < 20, (killed, outcomes)
        outcomes.append(queue.result(queue.submit(**_connect(INTERNET4))).outcome)
    assert queue.result(queue.submit(command=["true"])).is_success


_SERVER = """
import socket
listener = socket.create_server(("", 5432), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    listener.accept()[0].send(b"served")
"""


def _publishing(port: int, **fields: Any) -> dict[str, Any]:
    service = {"image": "host", "name": "db", "command": ["python3", "-c", _SERVER], "ports": f"{port}:5432"}
    service["ready"] = "tcp:5432"
    return {"command": ["sleep", "1000"], "network": "bridge", "services": [service], **fields}


def test_a_published_port_leads_to_a_service_while_its_job_runs(bridged: Any, queue: Any, world: World) -> None:
    """From beyond the host, by both protocols; nobody listens there before or after."""
    bridged.fields["allow"] = Allowed(ports=("18000-18010",))
    bridged.start()
    job = queue.submit(**_publishing(18008))
    queue.await_state(job, "running")
    for address in ("192.0.2.2", "fd77::2"):
        assert world.fetch(address, 18008) == "served"
    table = table_name(WorkerSettings(bridged.home, bridged.url, "w").cgroup_tag)
    assert {each.host_port for each in entries(table)} == {18008}
    queue.producer.cancel(job)
    assert queue.result(job).outcome == "cancelled"
    socket.create_server(("", 18008)).close()  # free by the time that the job's end is told
    assert list(entries(table)) == []
    bridged.stop()


def test_a_port_that_is_not_a_jobs_to_publish_is_refused(bridged: Any, queue: Any) -> None:
    """One that the operator has not allowed, one without a bridge; one that another program has is told."""
    bridged.fields["allow"] = Allowed(ports=("18000-18010",))
    bridged.start()
    for fields, why in (
        (_publishing(22), r"services[0].ports[0]: the operator of this worker does not allow 22 ([allow] ports)"),
        (_publishing(18001, network="none"), "services[0].ports[0]: needs network: bridge"),
    ):
        result = queue.result(queue.submit(**fields))
        assert (result.outcome, why in result.message) == ("rejected", True), result.message
    with socket.create_server(("", 18002)):
        result = queue.result(queue.submit(**_publishing(18002)))
    assert (result.outcome, result.reason) == ("failed", "service_not_ready")
    assert "cannot publish the port 18002:5432/tcp: Address already in use" in result.message
