"""A container on the bridge: whom it reaches, by which name servers, how fast, and what it leaves behind."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from network_world import INTERNET4, INTERNET6, METADATA4, PORT, PRIVATE4, RESOLVER, TAG, World, nft_tables

from dayfly.jobs.ports import PublishedPort
from dayfly.runtime.idrange import HeldPlace, IdRange
from dayfly.runtime.network.bridge import Bridge, take_down
from dayfly.runtime.network.refused import Refused
from dayfly.runtime.network.settings import NetworkSettings
from dayfly.runtime.shape import BridgeUse, Shape

pytestmark = pytest.mark.kernel

# Each target of the arguments tried with TCP; what came of it, a line each.
_CONNECT = """
import socket, sys
for target in sys.argv[2:]:
    try:
        with socket.create_connection((target, int(sys.argv[1])), timeout=20) as connection:
            print(target, connection.recv(9).decode())
    except OSError as error:
        print(target, type(error).__name__, error.errno)
"""


Run = Callable[..., Any]
Running = Callable[..., Any]


def _connect(run: Run, *targets: str, **fields: Any) -> Any:
    return run("python3", "-c", _CONNECT, str(PORT), *targets, **fields)


@pytest.mark.each_runtime
def test_a_job_reaches_the_internet_by_both_protocols(run: Run, world: World) -> None:
    """Its packets leave with the host's address."""
    ended = _connect(run, INTERNET4, INTERNET6)
    assert ended.answers == {INTERNET4: "hello", INTERNET6: "hello"}
    assert {each[3] for each in world.seen()} == {"192.0.2.2", "fd77::2"}
    assert ended.refused is None


def test_what_is_refused_fails_at_once_and_is_counted(run: Run, world: World) -> None:
    """Three connections to the metadata address are told as three, and nothing of them has left the host."""
    ended = _connect(run, METADATA4, METADATA4, METADATA4, PRIVATE4)
    assert set(ended.answers.values()) == {"ConnectionRefusedError 111"}
    assert world.seen() == []
    assert ended.refused == Refused(4, ((METADATA4, 3), (PRIVATE4, 1)))


def test_names_are_looked_up_at_a_private_server_of_which_nothing_else_is_open(run: Run, world: World) -> None:
    """The policy opens port 53 of the name server, by UDP and TCP, and no other port of it."""
    program = f"""
import socket
print(socket.getaddrinfo("example.org", 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
socket.create_connection(("{RESOLVER}", 53), timeout=20).close()
try:
    socket.create_connection(("{RESOLVER}", {PORT}), timeout=20)
except ConnectionRefusedError:
    print("refused")
print(open("/etc/resolv.conf").read().split()[:2], socket.gethostbyname("localhost"))
"""
    ran = run("python3", "-c", program)
    assert ran.stdout.splitlines() == [INTERNET4, "refused", f"['nameserver', '{RESOLVER}'] 127.0.0.1"], ran


def test_jobs_own_list_narrows_and_widens(run: Run) -> None:
    """With a list of its own a job reaches that, and neither the rest of the internet nor what others reach."""
    ended = _connect(run, INTERNET4, "5.6.7.9", PRIVATE4, bridge=BridgeUse(allow=("5.6.7.8/32", "10.1.0.0/16")))
    assert ended.answers == {INTERNET4: "hello", "5.6.7.9": "ConnectionRefusedError 111", PRIVATE4: "hello"}


def test_services_have_names_beside_the_networks_own(running: Running, read_all: Callable[[int], str]) -> None:
    """A job with services finds them in /etc/hosts, and its name servers where every job on the bridge has them."""
    with running("cat", "/etc/hosts", "/etc/resolv.conf", neighbours=("db",)) as container:
        assert container.init.end().exit_code == 0
        container.init.reap()
        words = read_all(container.init.stdout).split()
    assert "db" in words
    assert words[words.index("nameserver") + 1] == RESOLVER


def test_ranges_of_a_list_may_overlap(run: Run) -> None:
    """An address, a range that holds it, and the internet."""
    allow = ("10.1.0.0/16", f"{PRIVATE4}/32", "internet", "10.0.0.0/9", "fc00:9::/32", "fc00:9::9/128")
    ended = _connect(run, PRIVATE4, INTERNET4, "fc00:9::9", RESOLVER, "172.16.9.9", bridge=BridgeUse(allow=allow))
    assert list(ended.answers.values()) == ["hello"] * 4 + ["ConnectionRefusedError 111"]


@pytest.mark.host_root("nobody else is in the namespace of a user's own bridge")
def test_a_policy_that_somebody_flushes_is_back_at_once(running: Running, tmp_path: Path) -> None:
    """A host's firewall that is loaded anew takes all tables away: jobs that run must not go on without ours."""
    program = f"""
import os, socket
print("runs", flush=True)
os.read(0, 1)
try:
    socket.create_connection(("{PRIVATE4}", {PORT}), timeout=20)
except ConnectionRefusedError:
    print("refused", flush=True)
"""
    stdin = f"{tmp_path}/stdin"
    os.mkfifo(stdin)
    writer = os.open(stdin, os.O_RDWR | os.O_CLOEXEC)
    with open(writer, "wb") as go, running("python3", "-c", program, stdin=stdin) as container:
        assert os.read(container.init.stdout, 16) == b"runs\n"
        subprocess.run(["nft", "flush", "ruleset"], check=True)
        _await_tables()
        go.write(b"x")
        go.flush()
        assert container.init.end().exit_code == 0
        assert os.read(container.init.stdout, 16) == b"refused\n"


def _await_tables() -> None:
    """Until both are there again, as nft's own monitor tells; a look first, since they may be there already."""
    monitor = subprocess.Popen(["nft", "monitor"], stdout=subprocess.PIPE, bufsize=0)
    try:
        assert monitor.stdout is not None
        while nft_tables().count(f"dayfly-{TAG}") < 2:
            assert select.select([monitor.stdout], [], [], 30)[0], "the policy is not back"
            os.read(monitor.stdout.fileno(), 1 << 16)
    finally:
        monitor.kill()
        monitor.communicate()


def test_a_list_dies_with_its_job(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next job of the same address has neither the list, nor the counters, of the last one."""
    monkeypatch.setattr(IdRange, "acquire", lambda: IdRange(HeldPlace(7, os.open("/dev/null", os.O_RDONLY))))
    first = _connect(run, PRIVATE4, METADATA4, bridge=BridgeUse(allow=(f"{PRIVATE4}/32",)))
    assert first.answers[PRIVATE4] == "hello"
    assert first.refused == Refused(1, ((METADATA4, 1),))
    second = _connect(run, INTERNET4)
    assert second.wire.address4 == first.wire.address4
    assert (second.answers, second.refused) == ({INTERNET4: "hello"}, None)
    third = _connect(run, PRIVATE4)
    assert third.refused == Refused(1, ((PRIVATE4, 1),))


def test_an_ordinary_user_of_a_job_has_the_same_network(run: Run) -> None:
    """And neither it nor the job's root can change a link, an address or a route."""
    program = """
import ctypes, errno, socket, fcntl, struct
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
delete_link = struct.pack("=IHHIIBxHiII", 32, 17, 5, 1, 0, 0, 0, 2, 0, 0)
netlink.send(delete_link)
print(struct.unpack_from("=i", netlink.recv(4096), 16)[0] == -errno.EPERM)
"""
    for user in ("root", "1000"):
        assert run("python3", "-c", program, user=user).stdout == "True\n"


@pytest.mark.parametrize("field", ["ingress_bps", "egress_bps"])
def test_rates_are_limited(run: Run, field: str) -> None:
    """Beyond a burst of 64 KiB nothing is faster than the rate: 80 KB more take more than two seconds at 32 KiB/s.

    One datagram at a time, so that none is dropped; the same without a limit is done before that.
    """
    program = f"""
import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("{INTERNET4}", {PORT}))
s.settimeout(20)
began = time.monotonic()
for _ in range(100):
    s.send(bytes(1400))
    assert len(s.recv(2000)) == 1400
print(time.monotonic() - began)
"""
    assert float(run("python3", "-c", program).stdout) < 2.0
    assert float(run("python3", "-c", program, bridge=BridgeUse(**{field: 32768})).stdout) > 2.0


@pytest.mark.host_root("nobody else is in the namespace of a user's own bridge")
def test_a_flushed_policy_comes_back_with_what_is_single_jobs_own(
    running: Running, shape: Shape, world: World, tmp_path: Path
) -> None:
    """A job that may reach nothing does not reach the internet then, and a published port leads to it still."""
    program = f"""
import os, socket
listener = socket.create_server(("", 5432))
print("listens", flush=True)
listener.accept()[0].send(b"served")
try:
    socket.create_connection(("{INTERNET4}", {PORT}), timeout=20)
except ConnectionRefusedError:
    print("refused", flush=True)
"""
    own = replace(shape, bridge=BridgeUse(allow=()))
    with running("python3", "-c", program, shape=own) as container:
        assert os.read(container.init.stdout, 16) == b"listens\n"
        assert container.wire is not None
        with container.wire.published([PublishedPort(15432, 5432)]):
            subprocess.run(["nft", "flush", "ruleset"], check=True)
            _await_tables()
            assert world.fetch("192.0.2.2", 15432) == "served"
        assert os.read(container.init.stdout, 16) == b"refused\n"


def _served(address: str, timeout: float = 20) -> bytes:
    with socket.create_connection((address, 15432), timeout=timeout) as connection:
        return connection.recv(16)


@pytest.mark.host_root("its bridge changes nothing of the host")
def test_the_bridge_goes_and_leaves_the_host_as_it_was(run: Run) -> None:
    """Bridge, ports, both tables, and forwarding that was switched on for it."""
    assert _forwards("up0") == "0"
    _connect(run, INTERNET4)
    assert _forwards("up0") == "1"
    assert take_down(TAG)
    assert not take_down(TAG)
    assert nft_tables() == ""
    assert _forwards("up0") == "0"
    assert {name for _, name in socket.if_nameindex()} == {"lo", "up0"}


@pytest.mark.host_root("its bridge changes nothing of the host")
def test_a_link_that_forwarded_before_goes_on(run: Run) -> None:
    """What was on before us stays on after us."""
    Path("/proc/sys/net/ipv4/conf/up0/forwarding").write_text("1")
    _connect(run, INTERNET4)
    assert take_down(TAG)
    assert _forwards("up0") == "1"


def _forwards(link: str) -> str:
    return Path(f"/proc/sys/net/ipv4/conf/{link}/forwarding").read_text().strip()


@pytest.mark.host_root("each home's bridge is in a namespace of its own")
def test_another_homes_bridge_is_left_alone(run: Run, start_network: Callable[..., int], tmp_path: Path) -> None:
    """Two homes on one host have bridges, ranges and tables of their own; one that goes takes nothing of the other."""
    _connect(run, INTERNET4)
    (tmp_path / "run").mkdir()
    other = Bridge(str(tmp_path), NetworkSettings(tag="0123abcd", dns=(RESOLVER,)))
    addresses = other.up()
    assert "dayfly-0123abcd" in nft_tables()
    assert take_down("0123abcd")
    assert "0123abcd" not in nft_tables()
    assert _forwards("up0") == "1"
    ended = _connect(run, INTERNET4)
    assert ended.answers == {INTERNET4: "hello"}
    assert ip_address(ended.wire.address4) not in addresses.subnet4


class TestWithAResolverOnLoopback:
    """The host's name server listens on 127.0.0.1 alone, as dnsmasq and unbound do."""

    @pytest.fixture
    def network_requests(self, start_network: Callable[..., int], tmp_path: Path) -> int:
        return start_network(tmp_path / "h", dns=("127.0.0.1",))

    @pytest.mark.host_root("a resolver on loopback that is stated, and not the host's own, is not asked there")
    def test_names_are_looked_up_there_and_nothing_else_of_loopback_is_open(
        self, running: Running, read_all: Callable[[int], str], world: World
    ) -> None:
        """It sees a client of the host's own; other ports of it, and 127.0.0.1 as a route, stay closed."""
        program = """
import socket
print(socket.gethostbyname("example.org"))
gateway = open("/etc/resolv.conf").read().split()[1]
try:
    socket.create_connection((gateway, 5353), timeout=20)
except ConnectionRefusedError:
    print("refused")
"""
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other = socket.create_server(("127.0.0.1", 5353))
        with server, other, running("python3", "-c", program) as container:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            server.bind(("127.0.0.1", 53))
            clients = set()
            end = container.init.end_fd
            while end not in (ready := select.select([server, end], [], [], 60)[0]):
                assert ready, "neither a question nor an end"
                question, client = server.recvfrom(4096)
                clients.add(client[0])
                server.sendto(world.answer(question), client)
            assert container.init.end().exit_code == 0
            container.init.reap()
            assert read_all(container.init.stdout).split() == [INTERNET4, "refused"]
            assert clients == {"127.0.0.1"}
