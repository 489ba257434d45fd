"""The bridge as a worker offers it: what a job gets of it, and what it may ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from network_world import nft_tables

from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.jobs.network import Network
from dayfly.runtime.network import nft
from dayfly.runtime.network.settings import NetworkSettings
from dayfly.worker.bridging import Bridging, network_settings
from dayfly.worker.settings import Allowed, JobDefaults, Networking, WorkerSettings


def _bridging(home: Path, url: str = "unix:///x", **settings: Any) -> Bridging:
    (home / "run").mkdir(parents=True, exist_ok=True)
    network = settings.pop("network", Networking(bridge=True))
    return Bridging(WorkerSettings(home, url, "w", network=network, **settings))


def _spec(**network: Any) -> Any:
    return read_job({"command": ["x"], **network})


def test_auto_is_nothing_where_the_operator_wants_no_bridge(tmp_path: Path) -> None:
    """And a job that demands one is rejected with the reason, by the name of the field and of the switch."""
    bridging = _bridging(tmp_path, network=Networking(bridge=False))
    assert bridging.mode(_spec(network="auto")) is Network.NONE
    assert "[network] bridge" in str(bridging.why_none(_spec(network="auto")))
    assert bridging.why_none(_spec()) is None
    with pytest.raises(SpecError, match=r"network: this worker has no bridge: .*\[network\] bridge"):
        bridging.mode(_spec(network="bridge"))


def test_without_nft_there_is_no_bridge_and_the_reason_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out when the first job comes that could have one."""
    monkeypatch.setattr(nft, "find_nft", lambda: None)
    bridging = _bridging(tmp_path)
    assert bridging.mode(_spec(network="auto")) is Network.NONE
    assert "apt-get install nftables" in str(bridging.why_not)


@pytest.mark.kernel
def test_where_the_host_can_auto_is_a_bridge(needs_bridge: None, tmp_path: Path) -> None:
    """The whole policy is tried without being kept, and what the network's process needs to know is written down."""
    before = nft_tables()
    bridging = _bridging(tmp_path, "redis://:secret@127.0.0.1:7000/0")
    assert bridging.mode(_spec(network="auto")) is Network.BRIDGE, bridging.why_not
    assert nft_tables() == before
    assert NetworkSettings.load(str(tmp_path)).never == (("127.0.0.1", 7000),)
    assert "secret" not in (tmp_path / "run/network.json").read_text()


@pytest.mark.parametrize(
    ("allow", "fault"),
    [
        (["internet"], None),
        (["8.8.8.8"], None),
        (["10.1.2.0/24", "2600::/32"], None),
        (["10.0.0.0/8"], 0),
        (["8.8.8.8", "192.168.0.1"], 1),
        (["0.0.0.0/0"], 0),
        (["::ffff:10.1.2.3"], 0),
        (["fd00:ec2::254"], 0),
        ([], None),
    ],
)
def test_a_job_picks_within_what_the_operator_allows(tmp_path: Path, allow: list[str], fault: int | None) -> None:
    """The internet is every address but the private ones; of those, what [allow] network names."""
    bridging = _bridging(tmp_path, allow=Allowed(network=("10.1.0.0/16",)))
    spec = _spec(network={"mode": "bridge", "allow": allow})
    if fault is None:
        assert bridging.use(spec).allow == spec.network.allow
    else:
        with pytest.raises(SpecError, match=rf"network\.allow\[{fault}\]: .*\[allow\] network"):
            bridging.use(spec)


def test_rates_are_the_jobs_or_the_operators(tmp_path: Path) -> None:
    """A rate on the host's own network could not be enforced, so it is refused."""
    bridging = _bridging(tmp_path, defaults=JobDefaults(network_ingress_bps=5000), allow=Allowed(network_host=True))
    use = bridging.use(_spec(network="bridge", limits={"network": {"egress": "1M"}}))
    assert (use.ingress_bps, use.egress_bps) == (5000, 1 << 20)
    with pytest.raises(SpecError, match=r"limits\.network"):
        bridging.mode(_spec(network="host", limits={"network": "egress=1M"}))


def test_the_queues_server_is_named_by_each_address_it_has(tmp_path: Path) -> None:
    """A socket of this host needs no rule; a name that cannot be resolved reaches nobody, the worker neither."""
    never = [
        network_settings(WorkerSettings(tmp_path, url, "w")).never
        for url in (
            "unix:///x",
            "redis://localhost",
            "redis://127.0.0.9:1234/1",
            "rediss://[::1]",
            "redis://no.invalid",
        )
    ]
    assert never[0] == never[4] == ()
    assert ("127.0.0.1", 6379) in never[1]
    assert never[2:4] == [(("127.0.0.9", 1234),), (("::1", 6379),)]
