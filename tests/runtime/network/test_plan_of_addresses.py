"""Names, addresses, ranges and name servers: what is worked out before any link is made."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime.idrange import IdRange
from dayfly.runtime.network import addresses, resolvers
from dayfly.runtime.network.addresses import find_addresses
from dayfly.runtime.network.ranges import is_within, overlaps, special4, special6
from dayfly.runtime.network.settings import JOBS_AT_MOST, NetworkSettings

Routes = list[tuple[str, ipaddress.IPv4Network]]


@pytest.fixture
def routes(monkeypatch: pytest.MonkeyPatch) -> Routes:
    """The routes of a host with none; a test adds what it likes."""
    found: Routes = []
    monkeypatch.setattr(addresses, "routes4", lambda: iter(found))
    return found


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """/etc/resolv.conf, and what systemd-resolved writes, as a test has them."""
    paths = tmp_path / "resolv.conf", tmp_path / "behind.conf"
    monkeypatch.setattr(resolvers, "RESOLV_CONF", str(paths[0]))
    monkeypatch.setattr(resolvers, "_BEHIND_RESOLVED", str(paths[1]))
    return paths


def test_every_name_fits_and_no_two_jobs_share_anything(routes: Routes) -> None:
    """IFNAMSIZ leaves 15 characters; ports, MACs and addresses differ, and none is the gateway's."""
    plan = find_addresses(NetworkSettings(tag="ffffffff"))
    assert plan.capacity == JOBS_AT_MOST
    assert len(plan.bridge) <= 15
    places = range(plan.capacity)
    for kind, own in (("port", ""), ("mac", plan.gateway_mac), ("ipv4", plan.gateway4), ("ipv6", plan.gateway6)):
        names = [getattr(plan, kind)(place) for place in places]
        assert len({*names, own}) == plan.capacity + 1
    assert max(len(plan.port(place)) for place in places) <= 15
    assert all(ipaddress.ip_address(plan.ipv4(place)) in plan.subnet4 for place in (0, plan.capacity - 1))
    for kind in (plan.ipv4, plan.ipv6):
        assert {plan.index_of(ipaddress.ip_address(kind(place)).packed) for place in places} == {*places}
    assert plan.index_of(ipaddress.ip_address(plan.gateway4).packed) is None
    assert plan.index_of(b"\x08\x08\x08\x08") is None
    assert plan.ipv4(plan.capacity - 1) != str(plan.subnet4.broadcast_address)


def test_a_range_that_the_host_uses_is_not_taken(routes: Routes) -> None:
    """Neither chosen nor accepted; the bridge's own route is no obstacle, and keeps its range."""
    settings = NetworkSettings(tag="00000000")
    first = find_addresses(settings).subnet4
    routes.append(("eth0", first))
    second = find_addresses(settings).subnet4
    assert not first.overlaps(second)
    routes.append(("eth1", ipaddress.IPv4Network("10.0.0.0/8")))
    assert str(find_addresses(settings).subnet4).startswith("172.")
    with pytest.raises(HostError, match="in use on this host") as caught:
        find_addresses(NetworkSettings(tag="00000000", subnet4="10.9.0.0/24"))
    assert "[network] subnet" in str(caught.value.remedy)
    routes.append(("df-00000000", second))
    assert find_addresses(settings).subnet4 == second


def test_a_host_that_uses_everything_says_so(routes: Routes) -> None:
    """Then the operator must choose."""
    routes.extend(("eth0", ipaddress.IPv4Network(each)) for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
    with pytest.raises(HostError, match="free range"):
        find_addresses(NetworkSettings(tag="00000000"))


_SPECIAL = (
    "10.255.0.1 172.31.0.1 192.168.0.1 100.127.0.1 169.254.169.254 127.0.0.1 0.0.0.0 224.0.0.1 255.255.255.255 "
    "::1 fd00:ec2::254 fe80::1 ff02::1 ::ffff:10.0.0.1 ::10.0.0.1 2002:a00:1::1 64:ff9b::a00:1 64:ff9b::a9fe:a9fe"
)
_ROUTED = "8.8.8.8 172.32.0.1 100.63.255.255 11.0.0.0 2600::1 64:ff9b::808:808"


def test_special_ranges_hold_what_no_job_may_reach() -> None:
    """RFC 1918, shared, link-local, metadata, multicast, and IPv4 hidden in IPv6."""
    special = [*special4(), *special6()]
    for kind, texts in ((True, _SPECIAL), (False, _ROUTED)):
        found = {text: overlaps(ipaddress.ip_network(text), special) for text in texts.split(" ")}
        assert set(found.values()) == {kind}, found


def test_a_range_is_within_others_as_a_whole_or_not_at_all() -> None:
    """The word internet is within itself alone."""
    assert is_within("internet", ("internet", "10.0.0.0/8"))
    assert not is_within("internet", ("0.0.0.0/0",))
    assert is_within("10.1.0.0/16", ("10.0.0.0/8",))
    assert not is_within("10.0.0.0/7", ("10.0.0.0/8", "internet"))


def test_a_private_name_server_is_used_as_it_is(files: tuple[Path, Path]) -> None:
    """Three at most, as resolv.conf has it; search and options come along, scopes and nonsense do not."""
    files[0].write_text(
        "search corp.example\nnameserver 10.0.0.53\nnameserver fe80::1%eth0\nnameserver 127.0.0.1\n"
        "nameserver nonsense\nnameserver 9.9.9.9\noptions ndots:2\nnameserver 2620:fe::fe\nnameserver 1.1.1.1\n"
    )
    found = resolvers.find_resolvers(())
    assert found.servers == ("10.0.0.53", "9.9.9.9", "2620:fe::fe")
    assert found.resolv_conf("10.1.0.1").splitlines() == [
        *(f"nameserver {each}" for each in found.servers),
        "search corp.example",
        "options ndots:2",
    ]


def test_behind_systemd_resolved_are_the_servers_that_it_asks(files: tuple[Path, Path]) -> None:
    """Its own stub takes no question that comes over a link."""
    files[0].write_text("nameserver 127.0.0.53\noptions edns0\n")
    files[1].write_text("nameserver 192.168.0.1\n")
    assert resolvers.find_resolvers(()).servers == ("192.168.0.1",)


def test_a_resolver_on_loopback_is_reached_by_the_gateway(files: tuple[Path, Path]) -> None:
    """What is stated goes before what is found."""
    files[0].write_text("nameserver ::1\nnameserver 127.0.0.1\n")
    found = resolvers.find_resolvers(())
    assert (found.servers, found.loopback) == ((), "127.0.0.1")
    assert found.resolv_conf("10.1.0.1") == "nameserver 10.1.0.1\n"
    assert resolvers.find_resolvers(("9.9.9.9",)).servers == ("9.9.9.9",)


def test_a_host_without_name_servers_gives_none(files: tuple[Path, Path]) -> None:
    """An empty file is what a job finds then."""
    assert resolvers.find_resolvers(()).resolv_conf("10.1.0.1") == ""


@pytest.mark.host_root("its jobs have no ranges of ids")
@pytest.mark.kernel
def test_a_place_comes_back_late(needs_root: None, in_child: object) -> None:
    """The next keeper's range is another one, so that what lags behind the last holder of a place is long over."""

    def first() -> int:
        return IdRange.acquire().place.index

    assert in_child(first) != in_child(first)  # type: ignore[operator]
