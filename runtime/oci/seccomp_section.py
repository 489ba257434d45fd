"""The filter of system calls as an OCI runtime takes it (config-linux.md, "Seccomp"): the same profile, by name.

The runtime compiles it with libseccomp, which knows calls by name and tests an argument once a rule: so a range of
values becomes the few aligned blocks that cover it, each one rule with a mask. Only the low half of an argument is
looked at, as the kernel does; a test of all 64 bits would let TIOCSTI through with a bit set above (CVE-2019-10063).
Entries of another architecture than the machine's own (i386, x32) are libseccomp's to refuse: it kills the process.
"""

import os
from collections.abc import Iterator
from typing import Any

from dayfly.runtime import seccomp
from dayfly.runtime.seccomp import ArgumentRule

_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_WORD = 0xFFFFFFFF


def cached(filter_path: str, kept: int) -> str:
    """The path of the section for the capability mask `kept`, beside the compiled filter for it; made when not there.

    The filter's name holds a hash of the profile and of this file.
    """
    import json

    path = filter_path.removesuffix(".bin") + ".json"
    if not os.path.exists(path):
        own = f"{path}.{os.getpid()}.tmp"
        with open(own, "w") as file:
            json.dump(section(os.uname().machine, kept), file)
        os.rename(own, path)
    return path


def section(architecture: str, kept: int) -> dict[str, Any]:
    """`linux.seccomp` of config.json. What is above the profile's highest number is unknown, as in our own filter."""
    policy = seccomp.policy(architecture, kept)
    names = {number: name for name, number in seccomp.numbers(architecture).items()}
    refused = [
        number
        for number in names
        if number <= policy.highest and not (number in policy.allowed or number in policy.rules)
    ]
    errnos = {number: policy.errnos.get(number, policy.refused) for number in refused}
    allowed: dict[str, Any] = {"action": _ALLOW}
    refusal: dict[str, Any] = {"action": _ERRNO, "errnoRet": policy.refused}
    return {
        "defaultAction": _ERRNO,
        "defaultErrnoRet": policy.unknown,
        "architectures": [_ARCHITECTURES[architecture]],
        "syscalls": [
            {"names": sorted(names[number] for number in policy.allowed), **allowed},
            *(
                {"names": sorted(names[n] for n in refused if errnos[n] == errno), "action": _ERRNO, "errnoRet": errno}
                for errno in sorted(set(errnos.values()) - {policy.unknown})
            ),
            *(
                {"names": [names[number]], **verdict, "args": [{"index": rule.index, **test}]}
                for number, rule in policy.rules.items()
                for verdict, blocks in zip((allowed, refusal), _divide(rule), strict=True)
                for test in map(_test, blocks)
            ),
        ],
    }


def _test(block: tuple[int, int]) -> dict[str, Any]:
    mask, value = block
    return {"value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _divide(rule: ArgumentRule) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """What the argument may be, and what not: together every number, as (mask, value)."""
    if rule.without:
        bits = [1 << place for place in range(32) if rule.without >> place & 1]
        return [(rule.without, 0)], [(bit, bit) for bit in bits]
    some = rule.within or tuple((value, value) for value in sorted(rule.except_))
    inside = [block for each in some for block in _blocks(*each)]
    outside = [block for each in _between(some) for block in _blocks(*each)]
    return (inside, outside) if rule.within else (outside, inside)


def _between(ranges: tuple[tuple[int, int], ...]) -> Iterator[tuple[int, int]]:
    """The ranges that lie before, between and after these, which are in ascending order."""
    first = 0
    for start, last in ranges:
        if first < start:
            yield first, start - 1
        first = last + 1
    if first <= _WORD:
        yield first, _WORD


def _blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest (mask, value) that cover a range: each is all numbers that begin with the same bits."""
    while first <= last:
        size = first & -first or _WORD + 1
        while first + size - 1 > last:
            size >>= 1
        yield _WORD & ~(size - 1), first
        first += size
