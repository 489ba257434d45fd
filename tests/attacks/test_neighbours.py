"""What a job on the bridge may try against its neighbours, with frames made by hand, which it must be allowed: N2."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from network_world import INTERNET4, INTERNET6, PORT, TAG, World

from dayfly.runtime.capabilities import DEFAULT_MASK, mask
from dayfly.runtime.container import Container, Host
from dayfly.runtime.idrange import HeldPlace, IdRange
from dayfly.runtime.shape import BridgeUse, ContainerPlan, Privileges, Process, Shape

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.host_root("the same bridge, in a namespace into which the test does not look"),
]

_TABLE = f"dayfly-{TAG}"
_BRIDGE = f"df-{TAG}"
_SIGTERM = 15
_RAW = Privileges(capabilities=DEFAULT_MASK | mask(["NET_RAW"]))  # and no filter of system calls: all it could be given

# A neighbour that listens to every frame, until its own have come back from the world by either protocol.
_WATCH = f"""
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind(("eth0", 0))
print(json.dumps("listens"), flush=True)
os.read(0, 1)
for family, address in ((socket.AF_INET, "{INTERNET4}"), (socket.AF_INET6, "{INTERNET6}")):
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"the end", (address, {PORT}))
seen = b""
raw.settimeout(30)
while seen.count(b"the end") < 2:
    frame, address = raw.recvfrom(4096)
    if address[2] != 4: seen += b"|" + frame  # PACKET_OUTGOING
tell(seen.hex())
"""

_SPOOF = f"""
import struct
raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
raw.bind(("eth0", 0))
mine = raw.getsockname()[4]
my4, his4, his_mac, gate4, gate_mac, my6, his6 = sys.argv[1:8]
his_mac, gate_mac = (bytes.fromhex(each.replace(":", "")) for each in (his_mac, gate_mac))
four, six, everyone = socket.inet_aton, lambda text: socket.inet_pton(socket.AF_INET6, text), b"\\xff" * 6
def summed(data):
    total = sum(struct.unpack(f">{{len(data) // 2}}H", data))
    while total >> 16: total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
def ip(source, target, protocol, body):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, four(source), four(target))
    return b"\\x08\\0" + head[:10] + struct.pack(">H", summed(head)) + head[12:] + body
def udp(source, target, word): return struct.pack(">HHHH", source, target, 8 + len(word), 0) + word
def ip6(source, target, following, body):
    return b"\\x86\\xdd" + struct.pack(">IHBB", 6 << 28, len(body), following, 255) + six(source) + six(target) + body
def ip6_summed(source, target, following, body, at):
    false = six(source) + six(target) + struct.pack(">II", len(body), following)
    total = summed(false + body + bytes(len(body) % 2))
    return ip6(source, target, following, body[:at] + struct.pack(">H", total) + body[at + 2:])
def icmp6(source, target, kind, rest):
    return ip6_summed(source, target, 58, struct.pack(">BBH", kind, 0, 0) + rest, 2)
def arp(operation, sender_mac, sender, target_mac, target):
    head = b"\\x08\\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, operation)
    return head + sender_mac + four(sender) + target_mac + four(target)
router = icmp6("fe80::1", "ff02::1", 134, struct.pack(">BBHII", 64, 0, 1800, 0, 0))
neighbour = icmp6(my6, "ff02::1", 136, struct.pack(">I", 0x60000000) + six(his6) + b"\\2\\1" + mine)
udp6 = ip6_summed(his6, "{INTERNET6}", 17, udp(7, {PORT}, b"his address 6!"), 6)
frames = {{  # those last that would teach a bridge where his MAC is
    "to him": his_mac + mine + ip(my4, his4, 17, udp(7, 7, b"to him!")),
    "arp": everyone + mine + arp(2, mine, gate4, everyone, his4),
    "arp to him": his_mac + mine + arp(2, mine, gate4, his_mac, his4),
    "dhcp": everyone + mine + ip(my4, "255.255.255.255", 17, udp(67, 68, b"dhcp offer!")),
    "advert": b"\\x33\\x33\\0\\0\\0\\1" + mine + router,
    "neighbour": gate_mac + mine + neighbour,
    "his address 6": gate_mac + mine + udp6,
    "his address": gate_mac + mine + ip(his4, "{INTERNET4}", 17, udp(7, {PORT}, b"his address!")),
    "his mac": gate_mac + his_mac + ip(my4, "{INTERNET4}", 17, udp(7, {PORT}, b"his mac!")),
    "both": gate_mac + his_mac + ip(his4, "{INTERNET4}", 17, udp(7, {PORT}, b"both!")),
}}
for frame in frames.values(): raw.send(frame)
print(json.dumps({{kind: frame.hex() for kind, frame in frames.items()}}), flush=True)
os.read(0, 1)
"""


@pytest.fixture
def network_requests(start_network: Callable[..., int], tmp_path: Path) -> int:
    return start_network(tmp_path / "h")


@pytest.fixture
def shape(shape: Shape) -> Shape:
    return replace(shape, network="bridge", bridge=BridgeUse())


def test_n2_nobody_speaks_in_anothers_name(host: Host, shape: Shape, prelude: str, world: World, tally: Any) -> None:
    """Addresses and MACs of a neighbour, ARP and neighbour discovery, DHCP and router advertisements, frames to it."""
    kinds, to_him, to_world, entry = _spoof(host, shape, prelude, world, is_open=False)
    held = not to_him and not to_world and entry == ["PERMANENT"]
    kinds, him, beyond, _ = _spoof(host, shape, prelude, world, is_open=True)
    wanted_by_him = {"to him", "arp", "arp to him", "dhcp", "advert"}
    wanted_beyond = {"his address", "his mac", "both", "his address 6"}
    bit = him >= wanted_by_him and beyond >= wanted_beyond and kinds >= wanted_by_him | wanted_beyond
    tally.judge(held=held, bit=bit, seen=(to_him, to_world, entry, him, beyond))


def _spoof(
    host: Host, shape: Shape, prelude: str, world: World, is_open: bool
) -> tuple[set[str], set[str], set[str], list[str]]:
    """The kinds of frames sent, those that came to the neighbour, to the world, and what the host has of him."""
    before = len(world.seen())
    with _job(host, shape, 1) as victim, _job(host, shape, 2) as attacker:
        if is_open:
            _open_everything()
        his, its = victim.container.wire, attacker.container.wire
        assert his is not None
        assert its is not None
        assert victim.start(prelude + _WATCH) == "listens"
        bridge, macs = _shown("link", _BRIDGE)["address"], _macs(his.address4, its.address4)
        gateway = _shown("addr", _BRIDGE)["addr_info"][0]["local"]
        frames = attacker.start(
            prelude + _SPOOF, its.address4, his.address4, macs[0], gateway, bridge, str(its.address6), str(his.address6)
        )
        victim.say()
        caught = bytes.fromhex(victim.line())
        shown = subprocess.run(["ip", "-j", "neigh", "show", his.address4], capture_output=True, text=True, check=True)
        entry = json.loads(shown.stdout)[0]
        assert entry["lladdr"] == macs[0]
    source = bytes.fromhex(macs[1].replace(":", ""))
    to_him = {kind for kind, frame in frames.items() if bytes.fromhex(frame)[14:] in caught and source in caught}
    words = [each[5] for each in world.seen()[before:]]
    return set(frames), to_him, {kind for kind in frames if f"{kind}!" in words}, entry["state"]


def _open_everything() -> None:
    """A bridge that learns, floods and joins its ports as any other, and asks no frame whose it is."""
    chains = [f"flush chain inet {_TABLE} {chain}" for chain in ("from_jobs", "to_jobs")]
    chains += [f"add rule inet {_TABLE} to_jobs accept"]
    chains += [f"flush chain bridge {_TABLE} from_ports"]
    subprocess.run(["nft", "-f", "-"], input="\n".join(chains), text=True, check=True)
    for port in [name for _, name in socket.if_nameindex() if name.startswith(f"df{TAG}")]:
        words = ["isolated", "off", "learning", "on", "flood", "on", "mcast_flood", "on", "bcast_flood", "on"]
        subprocess.run(["bridge", "link", "set", "dev", port, *words], check=True)
    for link in (_BRIDGE, "all"):
        Path(f"/proc/sys/net/ipv4/conf/{link}/rp_filter").write_text("0")


def _macs(*addresses: str) -> list[str]:
    shown = subprocess.run(["ip", "-j", "neigh", "show", "dev", _BRIDGE], capture_output=True, text=True, check=True)
    known = {each["dst"]: each["lladdr"] for each in json.loads(shown.stdout)}
    return [known[address] for address in addresses]


def _shown(kind: str, link: str) -> dict[str, Any]:
    command = ["ip", "-j", "-4", "addr", "show", link] if kind == "addr" else ["ip", "-j", "link", "show", link]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(shown.stdout)[0]
    return found


class _Job:
    """A job on the bridge that may make frames by hand; its standard input stays open."""

    def __init__(self, host: Host, shape: Shape, container: Container) -> None:
        self.container = container
        self._shape = shape
        self._stdin = f"{host.home}/{os.urandom(4).hex()}"
        os.mkfifo(self._stdin)
        self._writer = os.open(self._stdin, os.O_RDWR | os.O_CLOEXEC)
        self._told = open(os.dup(container.init.stdout))  # noqa: SIM115 - closed in close()

    def start(self, program: str, *arguments: str) -> Any:
        """Start it; what it tells first."""
        argv = ("python3", "-c", program, *arguments)
        process = Process(argv=argv, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, stdin=self._stdin)
        plan = ContainerPlan(shape=self._shape, process=process, privileges=_RAW)
        assert self.container.start(plan, _SIGTERM) is None
        return self.line()

    def say(self) -> None:
        os.write(self._writer, b"\n")

    def line(self) -> Any:
        line = self._told.readline()
        assert line, os.read(self.container.init.stderr, 4096)
        return json.loads(line)

    def close(self) -> None:
        self.container.discard()
        self._told.close()
        os.close(self._writer)


@contextlib.contextmanager
def _job(host: Host, shape: Shape, place: int) -> Iterator[_Job]:
    """At a place of its own: both jobs have this process for a keeper, whose locks do not exclude each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IdRange, "acquire", lambda: IdRange(HeldPlace(place, os.open("/dev/null", os.O_RDONLY))))
        job = _Job(host, shape, Container.prepare(host, shape, os.urandom(8).hex()))
    with contextlib.closing(job):
        yield job
