"""The filter as OCI runtimes take it says of every call what our own filter says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime import capabilities, seccomp
from dayfly.runtime.capabilities import DEFAULT_MASK
from dayfly.runtime.oci import seccomp_section

_SETS = [DEFAULT_MASK, DEFAULT_MASK | capabilities.mask({"SYS_ADMIN", "SYS_CHROOT"}), 0]
_FAMILIES = [*range(48), 0x1_0000_0028, 0xFFFFFFFF]  # AF_VSOCK with a bit above the low half among them
_REQUESTS = [0, 0x5401, 0x5411, 0x5412, 0x5413, 0x541B, 0x541C, 0x541D, 0xFFFFFFFF, 0x1_0000_5412]
_FLAGS = [0, 0x11, 0x1200011, 0x02000000, 0x10000000, 0x7E020000, 0x4000]


def _judge(section: dict[str, Any], name: str, argument: int = 0) -> int:
    """The errno that a runtime answers with, 0 for allowed (config-linux.md: a rule's tests, or the default)."""
    for rule in section["syscalls"]:
        tests = rule.get("args", [])
        assert len(tests) <= 1, "libseccomp takes one test of an argument"
        if name in rule["names"] and all(argument & test["value"] == test["valueTwo"] for test in tests):
            return 0 if rule["action"] == "SCMP_ACT_ALLOW" else rule["errnoRet"]
    return section["defaultErrnoRet"]


def _judge_natively(policy: seccomp.Policy, number: int, argument: int) -> int:
    low, rule = argument & 0xFFFFFFFF, policy.rules.get(number)
    if number > policy.highest:
        return policy.unknown
    if rule is None:
        return 0 if number in policy.allowed else policy.errnos.get(number, policy.refused)
    if rule.without:
        return policy.refused if low & rule.without else 0
    if rule.except_:
        return policy.refused if low in rule.except_ else 0
    return 0 if any(first <= low <= last for first, last in rule.within) else policy.refused


@pytest.mark.parametrize("kept", _SETS)
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_each_call_has_the_verdict_of_our_own_filter(architecture: str, kept: int) -> None:
    """By name, with every kind of argument that the profile looks at; what is newer than the profile is ENOSYS."""
    policy, section = seccomp.policy(architecture, kept), seccomp_section.section(architecture, kept)
    for name, number in seccomp.numbers(architecture).items():
        for argument in {*_FAMILIES, *_REQUESTS, *_FLAGS}:
            seen = _judge(section, name, argument)
            assert seen == _judge_natively(policy, number, argument), (name, hex(argument))
    assert _judge(section, "a_call_of_the_future") == 38


def test_no_rule_has_the_default_action() -> None:
    """libseccomp refuses a rule that says what the default says (EACCES)."""
    section = seccomp_section.section("x86_64", DEFAULT_MASK)
    default = (section["defaultAction"], section["defaultErrnoRet"])
    assert default not in [(rule["action"], rule.get("errnoRet")) for rule in section["syscalls"]]


def test_section_is_made_once(tmp_path: Path) -> None:
    """It lies beside the filter whose name has the hash of all that both depend on."""
    filter_path = seccomp.cached(str(tmp_path))
    path = Path(seccomp_section.cached(filter_path, DEFAULT_MASK))
    before = path.stat()
    assert seccomp_section.cached(filter_path, DEFAULT_MASK) == str(path)
    assert path.stat().st_ino == before.st_ino
    assert path.parent == Path(filter_path).parent
