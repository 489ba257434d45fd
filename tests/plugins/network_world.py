"""A network of the test's own: this process moves into a network namespace that plays the host, beside one that plays
everything else. The machine's own links, tables and switches are never touched.

    job ── bridge ── [ host: up0 192.0.2.2 ] ── [ world: 5.6.7.8 the internet, 10.1.2.3 private, 169.254.169.254 … ]
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

from dayfly.runtime import syscalls
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.network.activation import NetworkProcess
from dayfly.runtime.network.settings import JOBS_OF_A_USER_AT_MOST, NetworkSettings

_DEADLINE_SECONDS = 60.0
TAG = "7e57ab1e"
PORT = 8080
INTERNET4, INTERNET6 = "5.6.7.8", "2600::8"
PRIVATE4 = "10.1.2.3"
RESOLVER = "10.9.9.53"
METADATA4, METADATA6 = "169.254.169.254", "fd00:ec2::254"
_ADDRESSES = (
    INTERNET4,
    "5.6.7.9",
    PRIVATE4,
    RESOLVER,
    METADATA4,
    "172.16.9.9",
    "192.168.9.9",
    "100.64.9.9",
    INTERNET6,
    METADATA6,
    "fc00:9::9",
)

# What answers there: TCP with a greeting, UDP with an echo, port 53 with an address for every name. It tells what came.
_WORLD = """
import json, select, socket, struct, subprocess, sys
addresses, port = json.loads(sys.argv[1]), int(sys.argv[2])
sockets, seen = {}, []
own = [f"addr add {each}/128 dev lo nodad" if ":" in each else f"addr add {each}/32 dev lo" for each in addresses]
subprocess.run(["ip", "-batch", "-"], input="\\n".join(["link set lo up", *own]), text=True, check=True)
def listen(address, kind, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    each = socket.socket(family, kind)
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    each.bind((address, port))
    if kind == socket.SOCK_STREAM: each.listen(64)
    sockets[each] = (address, kind, port)
for address in addresses:
    for number in (port, 53):
        listen(address, socket.SOCK_STREAM, number); listen(address, socket.SOCK_DGRAM, number)
def answer(question):
    name, target = question[12:], "169.254.169.254" if b"rebind" in question else "5.6.7.8"
    end = name.index(b"\\0") + 5
    is_a = name[end - 4:end - 2] == b"\\0\\1"
    head = question[:2] + struct.pack(">HHHHH", 0x8180, 1, is_a, 0, 0) + name[:end]
    return head + (struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(target) if is_a else b"")
print("ready", flush=True)
while True:
    for each in select.select([sys.stdin, *sockets], [], [])[0]:
        if each is sys.stdin:
            line = sys.stdin.readline()
            if not line: sys.exit()
            order = json.loads(line)
            if order[0] == "send":
                sender = next(s for s, what in sockets.items() if what == (order[1], socket.SOCK_DGRAM, port))
                sender.sendto(order[4].encode(), (order[2], order[3]))
            if order[0] == "answer":
                print(json.dumps(answer(bytes.fromhex(order[1])).hex()), flush=True)
                continue
            if order[0] == "fetch":
                with socket.create_connection((order[1], order[2]), 20) as server:
                    print(json.dumps(server.recv(64).decode()), flush=True)
                continue
            print(json.dumps(seen), flush=True)
            continue
        address, kind, number = sockets[each]
        if kind == socket.SOCK_STREAM:
            connection, peer = each.accept(); connection.send(b"hello"); connection.close()
            seen.append(["tcp", address, number, peer[0], peer[1], ""])
        else:
            data, peer = each.recvfrom(4096)
            seen.append(["udp", address, number, peer[0], peer[1], data[:40].decode("latin1")])
            each.sendto(answer(data) if number == 53 and len(data) > 16 else data, peer)
"""


@dataclass
class World:
    """Everything beyond the host."""

    process: subprocess.Popen[str]

    def seen(self) -> list[list[Any]]:
        """What has come: [protocol, address, port, sender, its port, text of a datagram]."""
        found: list[list[Any]] = self._order("seen")
        return found

    def fetch(self, address: str, port: int) -> str:
        """What a listener of the host says to somebody out there."""
        return str(self._order("fetch", address, port))

    def send(self, source: str, target: str, port: int, text: str) -> None:
        """A datagram from PORT of `source`, as an answer that comes late."""
        self._order("send", source, target, port, text)

    def answer(self, question: bytes) -> bytes:
        """What the name servers there would answer."""
        return bytes.fromhex(self._order("answer", question.hex()))

    def _order(self, *words: Any) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        return json.loads(_line(self.process))


@pytest.fixture(scope="session")
def needs_bridge(lacks: Callable[[str], NoReturn], need_tool: Callable[[str], str]) -> None:
    """This machine can give jobs a bridge: root's, or one of this user's own."""
    if os.geteuid() != 0 and own_id_map() is None:
        lacks("root")
    need_tool("nft")
    need_tool("ip")
    if own_id_map() is not None:  # then the namespaces are the user's own, and all that is in them
        need_tool("pasta")
        syscalls.unshare(syscalls.CLONE_NEWNET)  # from the machine's own there is no way back into it: leave it at once
        _ip("link set lo up")
        return
    tried = subprocess.run(["unshare", "-n", "nft", "list", "tables"], capture_output=True, check=False)
    if tried.returncode:
        lacks("nftables in its kernel")
    with contextlib.suppress(FileNotFoundError):
        os.close(os.open("/proc/sys/net/ipv4/conf/lo/forwarding", os.O_WRONLY))
        return
    lacks("a writable /proc/sys/net")


@pytest.fixture
def network_requests() -> int:
    """Where a container on the bridge asks for its link; tests that have a bridge override it."""
    return -1


@pytest.fixture
def world(needs_bridge: None) -> Iterator[World]:
    """This process plays the host until the test is over; returns everything else."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    syscalls.unshare(syscalls.CLONE_NEWNET)
    try:
        with _world() as found:
            yield found
    finally:
        syscalls.setns(own, syscalls.CLONE_NEWNET)
        os.close(own)


@pytest.fixture
def start_network(world: World) -> Iterator[Callable[..., int]]:
    """`start_network(home, tag=…, egress=…)`: the network's process of a home; returns where keepers ask."""
    started: list[tuple[int, int, str, Path]] = []

    def start(home: Path, **settings: Any) -> int:
        (home / "run").mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {"tag": TAG, "dns": (RESOLVER,), **settings}
        if own_id_map() is not None:
            settings = {"jobs_at_most": JOBS_OF_A_USER_AT_MOST, **settings}
        NetworkSettings(**settings).save(str(home))
        process = NetworkProcess(str(home), [str(Path(__file__).parents[2] / "src")])
        started.append((process.requests, process.start(), settings["tag"], home))
        os.close(process.waiting_fd)
        return process.requests

    yield start
    from dayfly.runtime.network.bridge import take_down  # pyroute2: for tests that have a bridge only

    for requests, pid, tag, home in started:
        os.close(requests)
        assert os.waitpid(pid, 0)[1] == 0
        if own_id_map() is None:
            take_down(tag)
        else:  # it goes with the worker's mount namespace, which here is the test's
            syscalls.umount2(str(home / "run/network.ns"), syscalls.MNT_DETACH)


@contextlib.contextmanager
def _world() -> Iterator[World]:
    command = ["unshare", "-n", sys.executable, "-c", _WORLD, json.dumps(_ADDRESSES), str(PORT)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert _line(process) == "ready"
        _join(process.pid)
        yield World(process)
    finally:
        process.kill()
        process.communicate()


def _join(pid: int) -> None:
    """Lay a cable between host and world."""
    inside = ["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"]
    _ip("link set lo up", f"link add up0 type veth peer name wan netns {pid}")
    _ip("addr add 192.0.2.2/24 dev up0", "addr add fd77::2/64 dev up0 nodad", "link set up0 up")
    lines = ("addr add 192.0.2.1/24 dev wan", "addr add fd77::1/64 dev wan nodad", "link set wan up")
    subprocess.run(inside, input="\n".join(lines), text=True, check=True)
    _ip("route add default via 192.0.2.1", "-6 route add default via fd77::1")


def _ip(*lines: str) -> None:
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], _DEADLINE_SECONDS)[0], "the world does not answer"
    return process.stdout.readline().strip()


def within_bridge(home: Path) -> list[str]:
    """What precedes a command that is to see the bridge of this home: an ordinary user's is in another namespace."""
    return [] if own_id_map() is None else ["nsenter", f"--net={home}/run/network.ns"]


def nft_tables() -> str:
    """The tables of the namespace that this process is in."""
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") or "nft"
    return subprocess.run([nft, "list", "tables"], capture_output=True, text=True, check=True).stdout
