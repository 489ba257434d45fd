"""The filter says for every call what the profile says: both architectures, by interpreting the program."""

import ctypes
import json
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.runtime import bpf, capabilities, seccomp

ARCHITECTURES = ("x86_64", "aarch64")
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
BEYOND_THE_JOB = """
io_uring_setup io_uring_enter io_uring_register userfaultfd keyctl add_key request_key bpf perf_event_open memfd_secret
open_by_handle_at mount umount2 fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr pivot_root setns
unshare kexec_load init_module finit_module delete_module swapon swapoff reboot acct settimeofday clock_settime quotactl
sethostname setdomainname syslog kcmp pidfd_getfd process_madvise
"""
DATA = Path(seccomp.__file__).parent / "seccomp_data"


def _numbers(architecture: str) -> dict[str, int]:
    return json.loads((DATA / f"{architecture}.json").read_text())


def _run(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """Interpret a filter as the kernel does; at most one step per instruction, since jumps only go forward."""
    words = (*arguments, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *words)
    instructions = list(struct.iter_unpack("=HBBI", program))
    place = accumulator = 0
    while True:
        code, yes, no, k = instructions[place]
        place += 1
        if code == 0x06:
            return k
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x05:
            place += k
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}
            place += yes if holds[code] else no


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def verdict(architecture: str) -> Callable[..., int]:
    """`verdict("socket", 38)`: what the default filter answers to a call, by name or number."""
    program = seccomp.compile_filter(seccomp.policy(architecture))
    numbers = _numbers(architecture)

    def ask(call: str | int, *arguments: int) -> int:
        number = numbers[call] if isinstance(call, str) else call
        return _run(program, seccomp.AUDIT_ARCH[architecture], number, arguments)

    return ask


def test_every_number_gets_what_the_profile_says(architecture: str) -> None:
    """For each number up to 1,000 and each capability set the program and the policy agree."""
    for kept in (0, capabilities.DEFAULT_MASK, capabilities.mask({"SYS_ADMIN"}), (1 << 41) - 1):
        policy = seccomp.policy(architecture, kept)
        program = seccomp.compile_filter(policy)
        for number in range(1000):
            if number in policy.rules:
                continue
            expected = EPERM
            if number in policy.allowed:
                expected = ALLOW
            elif number in policy.errnos:
                expected = 0x00050000 | policy.errnos[number]
            elif number > policy.highest:
                expected = ENOSYS
            assert _run(program, seccomp.AUDIT_ARCH[architecture], number) == expected, number


def test_each_name_of_the_profile_is_a_call(architecture: str) -> None:
    """No name in the profile is misspelt: each has a number on one architecture at least."""
    profile = tomllib.loads((DATA / "profile.toml").read_text())
    names = " ".join([*profile["allowed"].values(), *profile["capability"].values()]).split()
    names += [*profile["argument"], *profile["errno"]]
    known = {name for each in ARCHITECTURES for name in _numbers(each)}
    assert set(names) - known == set()
    assert profile["capability"].keys() <= capabilities.NUMBERS.keys()


def test_the_number_tables_agree_with_libseccomp(architecture: str, lacks: Callable[[str], None]) -> None:
    """Every name that libseccomp knows has the number that we have."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        lacks("libseccomp.so.2")
    token = seccomp.AUDIT_ARCH[architecture]
    checked = 0
    for name, number in _numbers(architecture).items():
        theirs = library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode())
        if theirs >= 0:
            assert theirs == number, name
            checked += 1
    assert checked > 250


def test_foreign_architectures_are_unknown(architecture: str) -> None:
    """i386, arm and x32 entries get ENOSYS for every call, allowed ones included."""
    program = seccomp.compile_filter(seccomp.policy(architecture))
    for foreign in (0x40000003, 0x40000028, *set(seccomp.AUDIT_ARCH.values()) - {seccomp.AUDIT_ARCH[architecture]}):
        assert {_run(program, foreign, number) for number in range(500)} == {ENOSYS}
    native = seccomp.AUDIT_ARCH[architecture]
    assert {_run(program, native, 0x40000000 | number) for number in range(600)} == {ENOSYS}
    assert _run(program, native, 0xFFFFFFFF) == ENOSYS


def test_socket_families(verdict: Callable[..., int]) -> None:
    """Families that reach the kernel's cryptography, the hypervisor, keys or raw frames are refused."""
    allowed = {family for family in range(300) if verdict("socket", family) == ALLOW}
    assert {1, 2, 10, 16} <= allowed
    assert allowed.isdisjoint({15, 17, 38, 40, 44, *range(46, 300)})
    assert verdict("socket", 0xFFFFFFFF) == EPERM
    assert verdict("socket", (1 << 32) | 38) == EPERM  # the kernel takes the low half, and so do we


def test_clone_may_not_make_namespaces(verdict: Callable[..., int]) -> None:
    """Each CLONE_NEW… flag is refused, alone or with others; threads and processes are allowed; clone3 is unknown."""
    for bit in range(32):
        is_namespace = (1 << bit) & 0x7E020000 != 0
        assert verdict("clone", 1 << bit | 17) == (EPERM if is_namespace else ALLOW)
    assert verdict("clone", 0x3D0F00) == ALLOW
    assert verdict("clone3") == ENOSYS


def test_terminal_input_cannot_be_faked(verdict: Callable[..., int]) -> None:
    """TIOCSTI and TIOCLINUX are refused, also with rubbish in the high half; other requests are allowed."""
    assert verdict("ioctl", 0, 0x5412) == EPERM
    assert verdict("ioctl", 0, (1 << 32) | 0x5412) == EPERM
    assert verdict("ioctl", 0, 0x541C) == EPERM
    assert verdict("ioctl", 0, 0x5413) == ALLOW


def test_personality(verdict: Callable[..., int]) -> None:
    """Only the personalities that change nothing of how memory is laid out."""
    allowed = [
        value
        for value in (0, 1, 8, 0x20000, 0x20008, 0x40000, 0x400000, 0xFFFFFFFF)
        if verdict("personality", value) == ALLOW
    ]
    assert allowed == [0, 8, 0x20000, 0x20008, 0xFFFFFFFF]


@pytest.mark.parametrize("call", BEYOND_THE_JOB.split())
def test_calls_that_reach_beyond_the_job_are_refused(verdict: Callable[..., int], call: str) -> None:
    """Docker's refused calls, and memfd_secret."""
    assert verdict(call) == EPERM


@pytest.mark.parametrize("call", ["open_tree_attr", "file_getattr", "file_setattr", "listns"])
def test_calls_newer_than_the_profile_are_unknown(verdict: Callable[..., int], call: str) -> None:
    """A libc that tries them falls back, as on an older kernel."""
    assert verdict(call) == ENOSYS


def test_a_capability_opens_its_calls_alone(architecture: str) -> None:
    """With SYS_ADMIN mount, clone and clone3 are free; with none of them chroot is closed."""
    numbers = _numbers(architecture)

    def ask(names: set[str], call: str, *arguments: int) -> int:
        program = seccomp.compile_filter(seccomp.policy(architecture, capabilities.mask(names)))
        return _run(program, seccomp.AUDIT_ARCH[architecture], numbers[call], arguments)

    assert ask({"SYS_ADMIN"}, "mount") == ALLOW
    assert ask({"SYS_ADMIN"}, "clone", 0x10000000) == ALLOW
    assert ask({"SYS_ADMIN"}, "clone3") == ALLOW
    assert ask({"SYS_ADMIN"}, "reboot") == EPERM
    assert ask({"SYS_CHROOT"}, "chroot") == ALLOW
    assert ask(set(), "chroot") == EPERM


def test_the_filter_is_short(architecture: str) -> None:
    """A binary search of about a hundred instructions, not a list of six hundred."""
    assert len(seccomp.compile_filter(seccomp.policy(architecture))) // 8 <= 120


def test_a_jump_farther_than_a_byte_goes_over_another() -> None:
    """A program of more than 255 instructions still finds its far targets."""
    program = bpf.Program()
    allow, refuse = program.result(bpf.ALLOW), program.result(bpf.errno(1))
    check = refuse
    for value in range(1000):
        check = program.if_equal(value * 2, allow, check)
    program.load(bpf.NUMBER, check)
    assembled = program.assemble()
    for number in (0, 2, 998, 1998):
        assert _run(assembled, 0, number) == ALLOW
        assert _run(assembled, 0, number + 1) == EPERM
