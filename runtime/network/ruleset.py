"""The policy of one home's bridge as one nftables transaction: nft(8) takes it whole or not at all.

Theory of operation
-------------------
Table `bridge`: what comes out of a job's port must bear the MAC and the IP address of that very port, both known
beforehand (`addresses.py`). Nothing else passes: no ARP and no neighbour discovery (both sides have permanent entries
instead, `links.py`), so nothing to spoof, no router advertisements, no DHCP. Ports are isolated besides: a job's frames
reach the host alone.

Table `inet`, whatever came from the bridge:
    to the host itself        refused, but for its name server when that listens on loopback (chain `names`)
    to another job            refused
    to the queue's server     refused, wherever it is
    to a name server          granted on port 53, and no other port
    to what none may reach    refused
    of a job with a list      granted when in its own list (`picked`, `keeps_internet`)
    of any other              granted when in the operator's list (`open`), or on the internet when that is in it
Refused is counted for each job (`sources`) and each pair of job and target (`refused`), and answered at once, which
is safe since the sender is who it says. A flood is refused like any other, but its targets are no longer noted down
(`bursts`). One job has at most CONNECTIONS_AT_MOST connections, so that the host's table of them is not one job's.

Sets that change with jobs are never flushed, so the transaction may be applied again while jobs run.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dayfly.jobs.ranges import INTERNET
from dayfly.runtime.network.addresses import Addresses
from dayfly.runtime.network.names import port_prefix
from dayfly.runtime.network.ranges import Range, of_version, special4, special6
from dayfly.runtime.network.resolvers import Resolvers
from dayfly.runtime.network.settings import NetworkSettings

CONNECTIONS_AT_MOST = 4096
TARGETS_AT_MOST = 65535
_ELEMENTS_A_COMMAND = 1024
_OUTER_PORTS = "61000-61999"  # above those that Linux gives to its own (net.ipv4.ip_local_port_range)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the rules are made of.

    `closed`: (ip version, link) that forward only because of us, and so for nobody but jobs. `outer`: the addresses of
    the host, where that is not who forwards.
    """

    addresses: Addresses
    settings: NetworkSettings
    resolvers: Resolvers
    closed: tuple[tuple[int, str], ...] = ()
    has_ipv6: bool = True
    outer: tuple[str, ...] = ()


def ruleset(policy: Policy) -> str:
    """The whole transaction."""
    return "\n".join([*_tables(policy), *_static_elements(policy), *_bridge_rules(policy), *_rules(policy), ""])


def removal(table: str) -> str:
    """Takes both tables away; `add` first, since an older nft(8) has no `destroy`."""
    families = ("inet", "bridge")
    return "".join(f"add table {family} {table}\ndelete table {family} {table}\n" for family in families)


def _tables(policy: Policy) -> Iterator[str]:
    table = policy.addresses.table
    for family in ("inet", "bridge"):
        yield f"add table {family} {table}"
    yield f"add set bridge {table} ports4 {{ type ifname . ether_addr . ipv4_addr; }}"
    yield f"add set bridge {table} ports6 {{ type ifname . ether_addr . ipv6_addr; }}"
    for version in (4, 6):
        address = f"ipv{version}_addr"
        for name in ("special", "open", "denied"):
            yield f"add set inet {table} {name}{version} {{ type {address}; flags interval; auto-merge; }}"
        yield f"add set inet {table} never{version} {{ type {address} . inet_service; }}"
        yield f"add set inet {table} resolvers{version} {{ type {address}; }}"
        for name in ("own", "keeps_internet"):
            yield f"add set inet {table} {name}{version} {{ type {address}; }}"
        yield f"add set inet {table} picked{version} {{ type {address} . {address}; flags interval; }}"
        for name in ("sources", "bursts", "connections"):
            yield f"add set inet {table} {name}{version} {{ type {address}; size 16384; flags dynamic; }}"
        target = f"type {address} . {address}; size {TARGETS_AT_MOST}; flags dynamic;"
        yield f"add set inet {table} refused{version} {{ {target} }}"
        published = f"type inet_proto . inet_service : {address} . inet_service;"
        yield f"add map inet {table} published{version} {{ {published} }}"


def _static_elements(policy: Policy) -> Iterator[str]:
    table, addresses, settings = policy.addresses.table, policy.addresses, policy.settings
    places = range(addresses.capacity)
    ports4 = (f'"{addresses.port(n)}" . {addresses.mac(n)} . {addresses.ipv4(n)}' for n in places)
    ports6 = (f'"{addresses.port(n)}" . {addresses.mac(n)} . {addresses.ipv6(n)}' for n in places)
    yield from _fill("bridge", table, "ports4", ports4)
    yield from _fill("bridge", table, "ports6", ports6)
    denied = (*settings.deny, *policy.outer)
    special: dict[int, list[Range]] = {4: special4(), 6: special6()}
    for version in (4, 6):
        never = (f"{address} . {port}" for address, port in settings.never if _version(address) == version)
        servers = (each for each in policy.resolvers.servers if _version(each) == version)
        yield from _fill("inet", table, f"special{version}", map(str, special[version]))
        yield from _fill("inet", table, f"open{version}", map(str, of_version(version, settings.egress)))
        yield from _fill("inet", table, f"denied{version}", map(str, of_version(version, denied)))
        yield from _fill("inet", table, f"never{version}", never)
        yield from _fill("inet", table, f"resolvers{version}", servers)


def _fill(family: str, table: str, name: str, elements: Iterable[str]) -> Iterator[str]:
    """What the set holds from now on."""
    yield f"flush set {family} {table} {name}"
    unique = list(dict.fromkeys(elements))
    for start in range(0, len(unique), _ELEMENTS_A_COMMAND):
        chunk = ", ".join(unique[start : start + _ELEMENTS_A_COMMAND])
        yield f"add element {family} {table} {name} {{ {chunk} }}"


def _version(address: str) -> int:
    return 6 if ":" in address else 4


def _bridge_rules(policy: Policy) -> Iterator[str]:
    """Before everything else that looks at bridged frames (priority -300, as conntrack's own hooks have it)."""
    chains = {
        "from_ports": (f'iifname "{port_prefix(policy.addresses.tag)}*" jump check',),
        "check": (
            "ether type ip iifname . ether saddr . ip saddr @ports4 accept",
            "ether type ip6 icmpv6 type { 133, 134, 135, 136, 137 } drop",  # discovery, RFC 4861
            "ether type ip6 iifname . ether saddr . ip6 saddr @ports6 accept",
            "drop",
        ),
    }
    hooks = {"from_ports": "type filter hook prerouting priority -300; policy accept;"}
    return _chains("bridge", policy.addresses.table, chains, hooks)


def _rules(policy: Policy) -> Iterator[str]:
    bridge = policy.addresses.bridge
    chains = {
        "early": (f'iifname "{bridge}" ip daddr 127.0.0.0/8 drop',),  # route_localnet must open no more than we do
        "forward": _forward(policy),
        "from_jobs": _from_jobs(policy),
        "own": _own(),
        "grant": (
            *(
                f"add @connections{version} {{ {ip} saddr ct count over {CONNECTIONS_AT_MOST} }} goto refuse"
                for version, ip in _IP.items()
            ),
            "accept",
        ),
        "to_jobs": ("ct state established,related accept", "ct status dnat accept", "drop"),
        "input": (f'iifname "{bridge}" jump to_host',),
        "to_host": (
            "ct state established,related accept",
            *_names_granted(policy),
            "meta pkttype != unicast drop",
            "goto refuse",
        ),
        "refuse": _refuse(),
        "answer": ("meta l4proto tcp reject with tcp reset", "reject with icmpx type admin-prohibited"),
        "names": _names(policy),
        "names_back": _names_back(policy),
        "publish": _publish(policy, is_from_outside=True),
        "publish_here": _publish(policy, is_from_outside=False),
        "masquerade_jobs": _masquerade(policy),
    }
    return _chains("inet", policy.addresses.table, chains, _HOOKS)


_IP = {4: "ip", 6: "ip6"}
_HOOKS = {
    "early": "type filter hook prerouting priority raw; policy accept;",
    "forward": "type filter hook forward priority filter; policy accept;",
    "input": "type filter hook input priority filter; policy accept;",
    "names": "type nat hook prerouting priority dstnat; policy accept;",
    "names_back": "type nat hook input priority 100; policy accept;",
    "publish": "type nat hook prerouting priority dstnat; policy accept;",
    "publish_here": "type nat hook output priority -100; policy accept;",
    "masquerade_jobs": "type nat hook postrouting priority srcnat; policy accept;",
}


def _forward(policy: Policy) -> tuple[str, ...]:
    bridge = policy.addresses.bridge
    closed = tuple(f'meta nfproto ipv{version} iifname "{link}" drop' for version, link in policy.closed)
    return (f'iifname "{bridge}" jump from_jobs', f'oifname "{bridge}" jump to_jobs', *closed)


def _from_jobs(policy: Policy) -> tuple[str, ...]:
    both = tuple(_IP.items())
    is_internet_open = INTERNET in policy.settings.egress
    return (
        f'oifname "{policy.addresses.bridge}" goto refuse',
        "ct state established,related accept",
        "ct state invalid drop",
        *(f"meta l4proto {{ tcp, udp }} {ip} daddr . th dport @never{version} goto refuse" for version, ip in both),
        *(f"meta l4proto {{ tcp, udp }} th dport 53 {ip} daddr @resolvers{version} goto grant" for version, ip in both),
        *(f"{ip} daddr @denied{version} goto refuse" for version, ip in both),
        *(f"{ip} saddr @own{version} goto own" for version, ip in both),
        *(f"{ip} daddr @open{version} goto grant" for version, ip in both),
        *(f"{ip} daddr != @special{version} goto grant" for version, ip in both if is_internet_open),
        "goto refuse",
    )


def _own() -> tuple[str, ...]:
    both = tuple(_IP.items())
    return (
        *(f"{ip} saddr . {ip} daddr @picked{version} goto grant" for version, ip in both),
        *(f"{ip} saddr @keeps_internet{version} {ip} daddr != @special{version} goto grant" for version, ip in both),
        "goto refuse",
    )


def _refuse() -> tuple[str, ...]:
    """The details are the first to go: when their set is full, or in a flood, the count of the job still grows."""
    both = tuple(_IP.items())
    burst = "limit rate over 100/second burst 500 packets"
    return (
        *(f"update @sources{version} {{ {ip} saddr counter }}" for version, ip in both),
        *(f"add @bursts{version} {{ {ip} saddr {burst} }} goto answer" for version, ip in both),
        *(f"update @refused{version} {{ {ip} saddr . {ip} daddr counter }}" for version, ip in both),
        "goto answer",
    )


def _names(policy: Policy) -> tuple[str, ...]:
    """A name server on the host's loopback is reached by the gateway's address; as any client of the host's own."""
    loopback = policy.resolvers.loopback
    if loopback is None:
        return ()
    asked = f'iifname "{policy.addresses.bridge}" ip daddr {policy.addresses.gateway4}'
    return tuple(f"{asked} {protocol} dport 53 dnat ip to {loopback}:53" for protocol in ("udp", "tcp"))


def _names_granted(policy: Policy) -> tuple[str, ...]:
    loopback = policy.resolvers.loopback
    if loopback is None:
        return ()
    return (f"ct status dnat meta l4proto {{ tcp, udp }} ip daddr {loopback} th dport 53 accept",)


def _names_back(policy: Policy) -> tuple[str, ...]:
    loopback = policy.resolvers.loopback
    if loopback is None:
        return ()
    return (f'iifname "{policy.addresses.bridge}" ip daddr {loopback} snat ip to 127.0.0.1',)


def _publish(policy: Policy, is_from_outside: bool) -> tuple[str, ...]:
    where = f'iifname != "{policy.addresses.bridge}" ' if is_from_outside else ""
    loopback = {4: "127.0.0.0/8", 6: "::1"}
    return tuple(
        f"{where}meta nfproto ipv{version} {ip} daddr != {loopback[version]} fib daddr type local "
        f"dnat {ip} to meta l4proto . th dport map @published{version}"
        for version, ip in _IP.items()
    )


def _masquerade(policy: Policy) -> tuple[str, ...]:
    """pasta has a port of the host for each port that it sees a datagram come from: a few, which no job chooses."""
    beyond = f'oifname != "{policy.addresses.bridge}"'
    ways = (f"ip saddr {policy.addresses.subnet4} {beyond}", f"ip6 saddr {policy.addresses.subnet6} {beyond}")
    few = [f"{way} meta l4proto udp masquerade to :{_OUTER_PORTS} fully-random" for way in ways if policy.outer]
    return (*few, *(f"{way} masquerade" for way in ways))


def _chains(family: str, table: str, chains: dict[str, tuple[str, ...]], hooks: dict[str, str]) -> Iterator[str]:
    """All chains first, since they name each other; each is emptied, so that applying again replaces its rules."""
    for name in chains:
        yield f"add chain {family} {table} {name}" + (f" {{ {hooks[name]} }}" if name in hooks else "")
    for name, rules in chains.items():
        yield f"flush chain {family} {table} {name}"
        for rule in rules:
            yield f"add rule {family} {table} {name} {rule}"
