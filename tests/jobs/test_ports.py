"""Ports of a host that lead to a service: how documents and configuration write them."""

from __future__ import annotations

from typing import Any

import pytest

from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.jobs.ports import PublishedPort, check_port_range, is_port_within


def _job(ports: Any) -> Any:
    return read_job({"command": ["x"], "services": [{"image": "a", "name": "db", "ports": ports}]})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("8080:80", PublishedPort(8080, 80)),
        ("53:5353/udp", PublishedPort(53, 5353, "udp")),
        (5432, PublishedPort(5432, 5432)),
        ("5432", PublishedPort(5432, 5432)),
        ({"host": 1, "port": 65535}, PublishedPort(1, 65535)),
    ],
)
def test_a_port_is_written_as_docker_has_it(written: Any, meant: PublishedPort) -> None:
    """Alone or in a list; the canonical document reads back as the same."""
    for form in (written, [written]):
        job = _job(form)
        assert job.services[0].ports == (meant,)
        assert read_job(job.to_document()) == job


@pytest.mark.parametrize(
    "written", ["8080:", "80/", ":80", "8080:80:90", "0", "65536", "80/icmp", "x", True, {"host": 1}]
)
def test_what_is_no_port_is_refused_with_its_place(written: Any) -> None:
    with pytest.raises(SpecError, match=r"services\[0\]\.ports"):
        _job([written])


def test_a_port_of_the_host_leads_to_one_service() -> None:
    """The same number by another protocol is another port."""
    assert len(_job(["53:53/udp", "53:53/tcp"]).services[0].ports) == 2
    with pytest.raises(SpecError, match="must not publish the port 53/udp of the host twice"):
        _job(["53:53/udp", "53:54/udp"])


@pytest.mark.parametrize("text", ["8000-", "-8000", "0", "9000-8000", "70000", "a", "", "1-2-3"])
def test_what_is_no_range_of_ports_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a port such as 8080"):
        check_port_range(text)


def test_a_range_has_both_its_ends() -> None:
    assert [port for port in (79, 80, 8000, 8999, 9000) if is_port_within(port, ("80", "8000-8999"))] == [
        80,
        8000,
        8999,
    ]
