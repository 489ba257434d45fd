"""The system calls that a job may make: a profile by name, compiled to a BPF filter for this machine.

`seccomp_data/profile.toml` says what is allowed, `seccomp_data/<architecture>.json` numbers the names.
`compile_filter` turns both into a binary search over ranges of call numbers (about seven comparisons for a call, a
hundred instructions in all; a linear list as libseccomp writes it has six hundred and takes six times as long to load).
The heavy part, reading and compiling, is the agent's, by `cached`; a keeper only reads the file and calls `install`.

Why the filter begins with the architecture: an x86_64 process can enter the kernel by `int 0x80` and make i386 calls,
whose numbers mean other things; a filter that looks at numbers alone is walked around. x32 calls have the x86_64
architecture and bit 30 set in the number.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dayfly.runtime import bpf, capabilities, syscalls

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""linux/audit.h; what `seccomp_data.arch` holds for a native call."""

_DATA = os.path.join(os.path.dirname(__file__), "seccomp_data")


@dataclass(frozen=True, slots=True)
class ArgumentRule:
    """The low half of argument `index` must lie `within` ranges, be none of `except_`, or have no bit of `without`."""

    index: int
    within: tuple[tuple[int, int], ...] = ()
    except_: tuple[int, ...] = ()
    without: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """The profile for one architecture and one set of capabilities, in numbers."""

    architecture: str
    allowed: frozenset[int]
    errnos: Mapping[int, int]
    rules: Mapping[int, ArgumentRule]
    highest: int
    refused: int
    unknown: int


def install(program: bytes) -> None:
    """Put the filter on this thread, for good. Without CAP_SYS_ADMIN, no_new_privs must be on before."""
    syscalls.seccomp_set_filter(program)


def load(path: str) -> bytes:
    """Read a compiled filter."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 4096 * 8)  # a filter has at most 4096 instructions of eight bytes (BPF_MAXINSNS)
    finally:
        os.close(fd)


def cached(home: str, kept: int = capabilities.DEFAULT_MASK) -> str:
    """The path of the filter for the capability mask `kept`, compiled into `home`/templates when it is not there.

    The name holds a hash of everything that the program depends on, so an old file is never mistaken for a new one.
    """
    import hashlib  # costs 3 ms and is needed once per agent

    architecture = os.uname().machine
    names = ("profile.toml", f"{architecture}.json", "../seccomp.py", "../bpf.py", "../oci/seccomp_section.py")
    sources = b"".join(map(_source, names))
    digest = hashlib.sha256(sources + f"{architecture} {kept:x}".encode()).hexdigest()[:16]
    path = os.path.join(home, "templates", f"seccomp-{digest}.bin")
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        own = f"{path}.{os.getpid()}.tmp"
        with open(own, "wb") as file:
            file.write(compile_filter(policy(architecture, kept)))
        os.rename(own, path)
    return path


def policy(architecture: str, kept: int = capabilities.DEFAULT_MASK) -> Policy:
    """Look the profile's names up for an architecture and a set of capabilities."""
    import tomllib  # only where a filter is compiled

    by_name = numbers(architecture)
    profile = tomllib.loads(_source("profile.toml").decode())
    held = {name for name, number in capabilities.NUMBERS.items() if kept >> number & 1}
    names = set(" ".join(profile["allowed"].values()).split())
    named = set(names)
    for capability, calls in profile["capability"].items():
        named.update(calls.split())
        if capability in held:
            names.update(calls.split())
    rules = {}
    for name, rule in profile["argument"].items():
        named.add(name)
        if rule.get("unless") not in held and name in by_name:
            rules[by_name[name]] = _argument_rule(rule)
            names.discard(name)
    return Policy(
        architecture=architecture,
        allowed=frozenset(by_name[name] for name in names if name in by_name),
        errnos={by_name[name]: errno for name, errno in profile["errno"].items() if name not in names},
        rules=rules,
        highest=max(by_name[name] for name in named if name in by_name),
        refused=profile["refused"],
        unknown=profile["unknown"],
    )


def numbers(architecture: str) -> dict[str, int]:
    """Every system call of an architecture by name."""
    import json

    found: dict[str, int] = json.loads(_source(f"{architecture}.json"))
    return found


def compile_filter(policy: Policy) -> bytes:
    """The filter as the kernel takes it: an array of `struct sock_filter`."""
    program = bpf.Program()
    allow = program.result(bpf.ALLOW)
    unknown = program.result(bpf.errno(policy.unknown))
    refused = program.result(bpf.errno(policy.refused))
    verdicts = dict.fromkeys(policy.allowed, allow)
    verdicts |= {number: program.result(bpf.errno(errno)) for number, errno in policy.errnos.items()}
    verdicts |= {number: _write_rule(program, rule, allow, refused) for number, rule in policy.rules.items()}
    ranges = [(0, verdicts.get(0, refused))]
    for number in range(1, policy.highest + 1):
        verdict = verdicts.get(number, refused)
        if verdict != ranges[-1][1]:
            ranges.append((number, verdict))
    ranges.append((policy.highest + 1, unknown))  # x32 calls are up there too: they have bit 30 set
    search = program.load(bpf.NUMBER, _write_search(program, ranges))
    native = program.if_equal(AUDIT_ARCH[policy.architecture], search, unknown)
    program.load(bpf.ARCHITECTURE, native)
    return program.assemble()


def _write_rule(program: bpf.Program, rule: ArgumentRule, allow: int, refused: int) -> int:
    """The test of one argument; `within` must be in ascending order."""
    check = refused
    if rule.without:
        check = program.if_any_bit(rule.without, refused, allow)
    elif rule.except_:
        check = allow
        for value in rule.except_:
            check = program.if_equal(value, refused, check)
    else:
        for first, last in reversed(rule.within):
            inside = allow if last == 0xFFFFFFFF else program.if_greater(last, check, allow)
            check = program.if_at_least(first, inside, refused)
    return program.load(bpf.argument(rule.index), check)


def _write_search(program: bpf.Program, ranges: list[tuple[int, int]]) -> int:
    """A binary search: each range is (first number, verdict) and goes up to the next one's first."""
    if len(ranges) == 1:
        return ranges[0][1]
    if len(ranges) == 3 and ranges[0][1] == ranges[2][1] and ranges[1][0] + 1 == ranges[2][0]:
        return program.if_equal(ranges[1][0], ranges[1][1], ranges[0][1])  # one number among others: one test, not two
    half = len(ranges) // 2
    above = _write_search(program, ranges[half:])
    below = _write_search(program, ranges[:half])
    return program.if_at_least(ranges[half][0], above, below)


def _argument_rule(rule: Mapping[str, Any]) -> ArgumentRule:
    return ArgumentRule(
        index=rule["index"],
        within=tuple((first, last) for first, last in rule.get("within", ())),
        except_=tuple(rule.get("except", ())),
        without=rule.get("without", 0),
    )


def _source(name: str) -> bytes:
    with open(os.path.join(_DATA, name), "rb") as file:
        return file.read()
