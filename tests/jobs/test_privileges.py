"""The switches of a document: their short forms, and Docker's rules for two lists of capabilities."""

import pytest

from dayfly.jobs.door import read_job
from dayfly.jobs.privileges import CAPABILITIES, DEFAULT_CAPABILITIES, Device, Seccomp, kept
from dayfly.jobs.spec import JobSpec

_ALL = frozenset(CAPABILITIES)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ((), (), DEFAULT_CAPABILITIES),
        (("SYS_PTRACE",), (), DEFAULT_CAPABILITIES | {"SYS_PTRACE"}),
        ((), ("CHOWN", "NET_RAW"), DEFAULT_CAPABILITIES - {"CHOWN"}),
        ((), ("ALL",), set()),
        (("KILL",), ("ALL",), {"KILL"}),
        (("ALL",), (), _ALL),
        (("ALL",), ("SYS_ADMIN",), _ALL - {"SYS_ADMIN"}),
    ],
)
def test_what_is_kept_follows_dockers_rules(add, drop, expected):
    """ALL in one list leaves the other one to say the exceptions."""
    assert kept(add, drop) == expected


def test_a_privileged_job_keeps_all_but_what_it_drops():
    """As in Docker, cap_drop counts for a privileged job too."""
    assert kept((), (), privileged=True) == _ALL
    assert kept((), ("SYS_ADMIN",), privileged=True) == _ALL - {"SYS_ADMIN"}
    assert kept((), ("ALL",), privileged=True) == set()


def test_capabilities_are_written_in_any_way():
    """With CAP_ or without, in capitals or not, one or many: the spec has the kernel's names."""
    spec = read_job({"command": "x", "cap_add": "cap_sys_ptrace", "cap_drop": ["Chown", "CAP_KILL"]})
    assert (spec.cap_add, spec.cap_drop) == (("SYS_PTRACE",), ("CHOWN", "KILL"))


@pytest.mark.parametrize(
    ("written", "device"),
    [
        ("/dev/kvm", Device("/dev/kvm", "/dev/kvm", "rw")),
        ("/dev/kvm:r", Device("/dev/kvm", "/dev/kvm", "r")),
        ("/dev/sda:/dev/disk:mwr", Device("/dev/sda", "/dev/disk", "rwm")),
        ({"source": "/dev/net//tun"}, Device("/dev/net/tun", "/dev/net/tun", "rw")),
        ({"source": "/dev/a", "target": "/dev/b/c", "permissions": "w"}, Device("/dev/a", "/dev/b/c", "w")),
    ],
)
def test_a_device_is_one_line_or_a_map(written, device):
    """Docker's short form, but read and write unless stated."""
    assert read_job({"command": "x", "devices": [written]}).devices == (device,)
    assert read_job({"command": "x", "devices": written}).devices == (device,)


def test_every_switch_survives_its_document():
    """to_document() says each, and what is not stated it leaves out."""
    spec = read_job(
        {"command": "x", "devices": "/dev/kvm", "cap_add": "ALL", "seccomp": "unconfined", "privileged": True}
    )
    assert read_job(spec.to_document()) == spec
    assert spec.seccomp is Seccomp.UNCONFINED
    assert (
        not {"devices", "cap_add", "cap_drop", "seccomp", "privileged"} & JobSpec(command=("x",)).to_document().keys()
    )
