"""What a job on the bridge may try against this host and what is behind it: N1."""

from __future__ import annotations

import contextlib
import errno
import json
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from network_world import METADATA4, METADATA6, PORT, PRIVATE4, RESOLVER, TAG, World, within_bridge

from dayfly.runtime.capabilities import DEFAULT_MASK, mask
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.shape import BridgeUse, Privileges, Shape

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]

_TABLE = f"dayfly-{TAG}"


@pytest.fixture
def network_requests(start_network: Callable[..., int], tmp_path: Path) -> int:
    return start_network(tmp_path / "h", never=(("5.6.7.9", PORT),))


@pytest.fixture
def shape(shape: Shape) -> Shape:
    return replace(shape, network="bridge", bridge=BridgeUse())


@pytest.fixture
def listeners(world: World) -> Iterator[tuple[int, int]]:
    """A server on every address of the host, as Redis would be, and one on its loopback alone."""
    with contextlib.ExitStack() as stack:
        everywhere = stack.enter_context(socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True))
        loopback = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        yield everywhere.getsockname()[1], loopback.getsockname()[1]


@pytest.fixture
def without_policy(tmp_path: Path) -> Callable[[], None]:
    """Called, it makes the bridge a plain router: what came from it may go anywhere."""

    def open_it() -> None:
        script = "".join(f"flush chain inet {_TABLE} {chain}\n" for chain in ("from_jobs", "to_host", "early"))
        command = [*within_bridge(tmp_path / "h"), "nft", "-f", "-"]
        subprocess.run(command, input=script, text=True, check=True)

    return open_it


_REACH = """
targets = json.loads(sys.argv[1])
def reach(address, port):
    with socket.create_connection((address, port), timeout=10): return
tell([[address, port, tries(reach, address, port)] for address, port in targets])
"""


def test_n1_host_metadata_and_private_ranges_are_out_of_reach(
    attack: Attack, tally: Any, world: World, listeners: tuple[int, int], without_policy: Callable[[], None]
) -> None:
    """Redis and every other port of the host by each of its addresses, the gateway, metadata, private ranges, IPv6."""
    anywhere, _ = listeners
    gateway = _gateway_of(attack)
    host = [(each, anywhere) for each in ("192.0.2.2", "fd77::2", *gateway, "::ffff:192.0.2.2")]
    beyond = [METADATA4, METADATA6, f"::ffff:{METADATA4}", PRIVATE4, "172.16.9.9", "192.168.9.9", "100.64.9.9"]
    beyond += ["fc00:9::9", "5.6.7.9"]  # the last is where the queue's server is said to be
    targets = json.dumps([*host, *((each, PORT) for each in beyond)])
    held = attack(_REACH, targets)
    assert world.seen() == []
    without_policy()
    bit = attack(_REACH, targets)
    # Where the bridge is in a user's own namespace, these are addresses of that, and nothing listens there.
    elsewhere = set() if own_id_map() is None else {*gateway, "fd77::2"}
    all_bit = not any(error for address, _, error in bit if address not in elsewhere)
    tally.judge(held=all(error for *_, error in held), bit=all_bit, seen=(held, bit))


def test_n1_the_hosts_loopback_is_another_one(attack: Attack, tally: Any, listeners: tuple[int, int]) -> None:
    """What listens on 127.0.0.1 and ::1 of the host listens on no loopback of the job's."""
    anywhere, loopback = listeners
    own = json.dumps([("127.0.0.1", loopback), ("::1", anywhere)])
    held = attack(_REACH, own)
    bit = attack(_REACH, own, without=("net namespace",), network="none", bridge=None)
    tally.judge(held=all(error for *_, error in held), bit=not any(error for *_, error in bit), seen=(held, bit))


def _gateway_of(attack: Attack) -> list[str]:
    program = """
import struct
lines = [line.split() for line in open("/proc/net/route")][1:]
four = next(socket.inet_ntoa(struct.pack("=I", int(each[2], 16))) for each in lines if each[1] == "00000000")
six = [line.split() for line in open("/proc/net/ipv6_route")]
gate = next(each[4] for each in six if each[0] == "0" * 32 and each[4] != "0" * 32)
tell([four, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(gate))])
"""
    found: list[str] = attack(program)
    return found


def test_n1_a_name_that_resolves_to_a_private_address_does_not_help(
    attack: Attack, tally: Any, world: World, without_policy: Callable[[], None]
) -> None:
    """DNS rebinding: what is judged is the address that is connected to, not the name."""
    program = f"""
def reach():
    address = socket.getaddrinfo("rebind.example.org", {PORT}, socket.AF_INET, socket.SOCK_STREAM)[0][4]
    assert address[0] == "{METADATA4}", address
    with socket.create_connection(address, timeout=10): return
tell(tries(reach))
"""
    held = attack(program)
    assert [each for each in world.seen() if each[2] != 53] == []
    without_policy()
    bit = attack(program)
    tally.judge(held=held != 0, bit=bit == 0, seen=(held, bit))


def test_n1_routes_of_the_jobs_own_do_not_help(attack: Attack, tally: Any, without_policy: Callable[[], None]) -> None:
    """`ip route add`: no job has CAP_NET_ADMIN, and with it the policy still is on the other side of the link."""
    program = f"""
import struct
gateway = socket.inet_aton(sys.argv[1])
route = struct.pack("=BBBBBBBBI", socket.AF_INET, 32, 0, 0, 254, 4, 0, 1, 4)
for kind, value in ((1, socket.inet_aton("{METADATA4}")), (5, gateway), (4, struct.pack("=i", int(sys.argv[2])))):
    route += struct.pack("=HH", 4 + len(value), kind) + value
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
netlink.send(struct.pack("=IHHII", 16 + len(route), 24, 0x605, 1, 0) + route)
added = -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
def reach():
    with socket.create_connection(("{METADATA4}", {PORT}), timeout=10): return
tell([added, tries(reach)])
"""
    gateway = _gateway_of(attack)[0]
    index = attack("tell(socket.if_nametoindex('eth0'))")
    held = attack(program, gateway, str(index))
    # A job that is given CAP_NET_ADMIN over its namespace adds the route, and is refused even so.
    admin = Privileges(capabilities=DEFAULT_MASK | mask(["NET_ADMIN"]))
    able = attack(program, gateway, str(index), privileges=admin)
    without_policy()
    bit = attack(program, gateway, str(index), privileges=admin)
    is_held = held[0] == errno.EPERM and held[1] != 0 and able[0] == 0 and able[1] != 0
    tally.judge(held=is_held, bit=bit == [0, 0], seen=(held, able, bit))


def test_n1_a_name_server_is_open_on_its_port_alone(
    attack: Attack, tally: Any, without_policy: Callable[[], None]
) -> None:
    """What the policy must let through for names is one port of one address, even when it is the metadata address."""
    held = attack(_REACH, json.dumps([(RESOLVER, PORT), (RESOLVER, 53)]))
    without_policy()
    bit = attack(_REACH, json.dumps([(RESOLVER, PORT), (RESOLVER, 53)]))
    tally.judge(held=held[0][2] != 0 and held[1][2] == 0, bit=bit[0][2] == 0, seen=(held, bit))
