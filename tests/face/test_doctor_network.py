"""What `dayfly doctor` says of the bridge; nothing of the host is changed by it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from network_world import RESOLVER, World, nft_tables

from dayfly import doctor_network
from dayfly.config import load
from dayfly.doctor_check import Check, Verdict
from dayfly.runtime.network import nft, resolvers


@pytest.fixture
def examine(monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, Check]]:
    """The checks by name, of a configuration with a bridge."""
    monkeypatch.setenv("DAYFLY_NETWORK_BRIDGE", "true")
    return lambda: {check.name.strip(): check for check in doctor_network.examine(load())}


def test_a_bridge_that_is_switched_off_is_nobodys_fault(home: Path) -> None:
    """The check says where."""
    (check,) = doctor_network.examine(load())
    assert check.verdict is Verdict.OK
    assert "DAYFLY_NETWORK_BRIDGE" in check.finding


def test_a_host_without_nft_is_told_the_package(
    examine: Callable[[], dict[str, Check]], monkeypatch: pytest.MonkeyPatch, needs_bridge: None
) -> None:
    """A warning: other jobs run all the same."""
    monkeypatch.setattr(nft, "find_nft", lambda: None)
    check = examine()["bridge"]
    assert check.verdict is Verdict.WARNING
    assert "apt-get install nftables" in check.remedy


@pytest.mark.kernel
def test_a_host_that_can_says_what_jobs_get(
    examine: Callable[[], dict[str, Check]], monkeypatch: pytest.MonkeyPatch, world: World, tmp_path: Path
) -> None:
    """Addresses, the way out, name servers; and what another program's table would drop."""
    monkeypatch.setenv("DAYFLY_NETWORK_DNS", RESOLVER)
    found = examine()
    assert {name: check.verdict for name, check in found.items()} == dict.fromkeys(found, Verdict.OK)
    assert "by up0" in found["bridge"].finding
    assert RESOLVER in found["name servers"].finding
    assert nft_tables() == ""
    rules = "table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"
    subprocess.run(["nft", rules], check=True)
    monkeypatch.delenv("DAYFLY_NETWORK_DNS")
    monkeypatch.setattr(resolvers, "RESOLV_CONF", str(tmp_path / "none"))
    found = examine()
    assert "DOCKER-USER" in found["forwarding"].remedy
    assert found["name servers"].verdict is Verdict.WARNING
