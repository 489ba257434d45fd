"""Switches from the command line to the kernel: what the operator allows is there, the rest is rejected by name."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

_ALLOWED = {"DAYFLY_ALLOW_CAP_ADD": "SYS_PTRACE", "DAYFLY_ALLOW_DEVICES": "/dev/fu*"}


def test_what_is_allowed_is_there_and_what_is_not_is_rejected(host: Any) -> None:
    """A job with a device and a capability runs, the next one without has neither, and each refusal names its key."""
    host.environment |= _ALLOWED
    host.start()
    look = "grep -c 00000000800c05fb /proc/self/status; echo > /dev/mine; test -e /dev/mine && echo node"
    ran = host.dayfly("run", "-q", "--cap-add", "sys_ptrace", "--device", "/dev/full:/dev/mine", "--", "sh", "-c", look)
    assert ran.stdout == "3\nnode\n", ran
    assert "error" in ran.stderr
    assert host.dayfly("run", "-q", "--", "test", "-e", "/dev/mine").returncode == 1
    for flags, field, key in (
        (["--privileged"], "privileged", "privileged"),
        (["--security-opt", "seccomp=unconfined"], "seccomp", "seccomp_unconfined"),
        (["--cap-add", "NET_ADMIN"], "cap_add[0]", "cap_add"),
        (["--device", "/dev/zero:/dev/mine"], "devices[0].source", "devices"),
    ):
        refused = host.dayfly("run", *flags, "--", "true")
        assert refused.returncode == 125
        assert field in refused.stderr
        assert f"[allow] {key}" in refused.stderr
