"""What of the kernel a job can reach: K1 to K11 of the list in docs/security.md."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]

_IS_X86 = platform.machine() == "x86_64"
_NUMBERS = {
    "unshare": (272, 97),
    "mount": (165, 40),
    "pivot_root": (155, 41),
    "swapon": (167, 224),
    "reboot": (169, 142),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "init_module": (175, 105),
    "settimeofday": (164, 170),
    "kexec_load": (246, 104),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "perf_event_open": (298, 241),
    "open_by_handle_at": (304, 265),
    "setns": (308, 268),
    "finit_module": (313, 273),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "memfd_secret": (447, 447),
    "io_uring_setup": (425, 425),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "clone3": (435, 435),
}


def _number(name: str) -> int:
    return _NUMBERS[name][0 if _IS_X86 else 1]


_NEW_MOUNT, _NEW_USER, _NEW_CGROUP = 0x00020000, 0x10000000, 0x02000000


@pytest.mark.each_runtime
def test_k1_release_agent_cannot_be_written(attack: Attack, tally: Any) -> None:
    """CVE-2022-0492: a job with namespaces of its own cannot mount a cgroup hierarchy and set its release agent."""
    program = f"""
unshared = call({_number("unshare")}, {_NEW_USER | _NEW_MOUNT | _NEW_CGROUP})
os.makedirs("/tmp/cg", exist_ok=True)
mounted = call({_number("mount")}, b"cgroup", b"/tmp/cg", b"cgroup", 0, b"memory")
written = mounted or tries(lambda: open("/tmp/cg/release_agent", "w").write("/bin/true"))
tell([unshared, mounted, written])
"""
    held, bit = attack(program), attack(program, without=("seccomp",))
    assert bit[2] != 0, "this kernel lets anybody with a user namespace write a release agent"
    tally.judge(held=held[0] == errno.EPERM and held[2] != 0, bit=bit[0] == 0, seen=(held, bit))


@pytest.mark.each_runtime
def test_k2_no_namespaces_within_the_container(attack: Attack, tally: Any) -> None:
    """CVE-2022-0185, CVE-2023-0386: what a new user namespace opens (mounts, overlay, fsconfig) stays closed."""
    program = f"""
clone3 = call({_number("clone3")}, 0, 0)
fsopen = call({_number("fsopen")}, b"ext4", 0)
setns = call({_number("setns")}, os.open("/proc/self/ns/net", os.O_RDONLY), 0)
fuse = tries(os.open, "/dev/fuse", os.O_RDWR)
unshare = call({_number("unshare")}, {_NEW_USER})
tell([clone3, fsopen, setns, fuse, unshare])
"""
    held, bit = attack(program), attack(program, without=("seccomp",))
    wanted = [errno.ENOSYS, errno.EPERM, errno.EPERM, errno.ENOENT, errno.EPERM]
    tally.judge(held=held == wanted, bit=bit[-1] == 0 and bit[0] != errno.ENOSYS, seen=(held, bit))


@pytest.mark.each_runtime
def test_k3_sockets_into_the_kernel_are_refused(attack: Attack, tally: Any) -> None:
    """CVE-2026-31431: no AF_ALG, AF_VSOCK, AF_PACKET, AF_KEY, AF_XDP; the ordinary families work."""
    program = """
families = [(38, 5), (40, 1), (17, 3), (15, 3), (44, 3)]
tell([[tries(socket.socket, *each) for each in families], tries(socket.socket, 2, 1), tries(socket.socket, 1, 1)])
"""
    held, bit = attack(program), attack(program, without=("seccomp", "capabilities", "bounding"))
    tally.judge(
        held=held == [[errno.EPERM] * 5, 0, 0],
        bit=0 in bit[0],  # the families that this kernel has
        seen=(held, bit),
    )


@pytest.mark.each_runtime
def test_k4_calls_that_no_job_needs_fail(attack: Attack, tally: Any) -> None:
    """Modules, kexec, bpf, io_uring, userfaultfd, mounts, keys, handles: each is EPERM, whatever its arguments."""
    names = [name for name in _NUMBERS if name != "clone3"]
    program = f"tell([call(number, -1, -1, -1, -1, -1, -1) for number in {[_number(name) for name in names]}])"
    held, bit = attack(program), attack(program, without=("seccomp",))
    open_ones = [name for name, number in zip(names, held, strict=True) if number != errno.EPERM]
    tally.judge(held=open_ones == [], bit=sum(number != errno.EPERM for number in bit) > 5, seen=(open_ones, bit))


@pytest.mark.each_runtime
def test_k5_keys_of_the_worker_are_out_of_reach(attack: Attack, tally: Any) -> None:
    """A key in the worker's session keyring is found by a job only without its own keyring and without the filter."""
    program = f"""
KEYCTL_SEARCH, SESSION = 10, -3
tell(call({_number("keyctl")}, KEYCTL_SEARCH, SESSION, b"user", b"dayfly-canary", 0))
"""
    with _key(b"dayfly-canary"):
        held = [attack(program, without=each) for each in ((), ("keyring",), ("seccomp",))]
        bit = attack(program, without=("keyring", "seccomp"))
    tally.judge(held=0 not in held, bit=bit == 0, seen=(held, bit))


@contextmanager
def _key(name: bytes) -> Iterator[None]:
    """A key in a session keyring of this test's own process, possessed by whom it forks."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    keyctl, join, unlink, session = _number("keyctl"), 1, 9, -3
    assert libc.syscall(keyctl, join, None) > 0
    key = libc.syscall(_number("add_key"), b"user", name, b"secret", ctypes.c_size_t(6), session)
    assert key > 0, os.strerror(ctypes.get_errno())
    yield
    libc.syscall(keyctl, unlink, key, session)


@pytest.mark.each_runtime
def test_k6_a_terminal_cannot_be_typed_into(attack: Attack, tally: Any) -> None:
    """TIOCSTI on a job's own terminal is EPERM, as it is on any."""
    program = """
import fcntl, pty
main, other = pty.openpty()
os.setsid() if os.getsid(0) != os.getpid() else None
fcntl.ioctl(other, 0x540E, 0)  # TIOCSCTTY
tell([tries(fcntl.ioctl, other, 0x5412, b"x"), tries(fcntl.ioctl, other, 0x541C, bytes([3]))])
"""
    held, bit = attack(program), attack(program, without=("seccomp",))
    if bit[0] == errno.EIO:
        tally.judge_alone(held=held == [errno.EPERM] * 2, closed="TIOCSTI (dev.tty.legacy_tiocsti=0)", seen=(held, bit))
    else:
        tally.judge(held=held == [errno.EPERM] * 2, bit=bit[0] == 0, seen=(held, bit))


_TELLING = ("/proc/interrupts", "/proc/keys", "/proc/timer_list", "/proc/kcore", "/proc/cmdline", "/proc/config.gz")


def test_k7_telling_files_are_empty(attack: Attack, tally: Any) -> None:
    """What is masked in /proc reads as nothing; without the masks at least one tells of the host."""
    program = f"""
def read(path):
    try:
        return open(path, "rb").read(64)
    except OSError:
        return b""
tell([len(read(path)) for path in {_TELLING}])
"""
    held, bit = attack(program), attack(program, without=("masks",))
    tally.judge(held=held == [0] * len(_TELLING), bit=sum(bit) > 0, seen=(held, bit))


def test_k7_no_file_of_the_kernel_opens_for_writing(attack: Attack, tally: Any) -> None:
    """All of /proc but the job's own processes, and all of /sys: not one; without masks and read-only mounts the
    pressure files do, which everybody may write to."""
    program = """
import stat
def files(top):
    for directory, names, found in os.walk(top):
        names[:] = [name for name in names if not (directory == "/proc" and (name.isdigit() or "self" in name))]
        yield from (os.path.join(directory, name) for name in found)
def opens(path):
    return stat.S_ISREG(os.lstat(path).st_mode) and tries(os.open, path, os.O_WRONLY | os.O_NONBLOCK) == 0
tell(sorted(path for top in ("/proc", "/sys") for path in files(top) if opens(path)))
"""
    held, bit = attack(program), attack(program, without=("masks", "read-only"))
    if os.path.exists("/proc/pressure/cpu"):
        tally.judge(held=held == [], bit="/proc/pressure/cpu" in bit, seen=(held, bit))
    else:
        tally.judge_alone(held=held == [], closed="files of /proc that all may write (no psi here)", seen=(held, bit))


@pytest.mark.host_root("its control needs host root, so that there is nothing to bite")
def test_k7_the_kernel_cannot_be_changed(attack: Attack, tally: Any) -> None:
    """Nothing of /proc/sys, sysrq-trigger and /sys opens for writing; host root without read-only mounts opens it."""
    paths = (
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/proc/sys/vm/drop_caches",
        "/sys/kernel/mm/ksm/run",
    )
    program = f"tell([tries(os.open, path, os.O_WRONLY) for path in {paths}])"
    held = attack(program)
    one_off = [attack(program, without=each) for each in (("user namespace",), ("read-only",))]
    bit = attack(program, without=("user namespace", "read-only"))
    assert all(0 not in each for each in one_off), one_off
    tally.judge(held=0 not in held, bit=bit[0] == 0, seen=(held, bit))


def test_k7_masks_stay_on(attack: Attack, tally: Any) -> None:
    """umount and remount are the host root's: refused by the filter, and by the owner of the mount namespace."""
    program = f"""
umount = 166 if os.uname().machine == "x86_64" else 39
MS_REMOUNT, MS_BIND = 32, 4096
tell([call(umount, b"/proc/keys", 0), call({_number("mount")}, 0, b"/proc/sys", 0, MS_REMOUNT | MS_BIND, 0)])
"""
    held = [attack(program), attack(program, without=("seccomp",))]
    everything_off = ("seccomp", "user namespace", "capabilities", "bounding")
    bit = attack(program, without=everything_off)
    tally.judge(held=all(0 not in each for each in held), bit=bit == [0, 0], seen=(held, bit))


def test_k8_a_crash_leaves_no_core(attack: Attack, tally: Any) -> None:
    """RLIMIT_CORE is 0, soft and hard, so nothing of a job's memory reaches a disk."""
    program = "import resource\ntell(resource.getrlimit(resource.RLIMIT_CORE))"
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    try:
        held, bit = attack(program), attack(program, without=("rlimits",))
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
    if hard == 0:
        tally.judge_alone(held=held == [0, 0], closed="core dumps: this host's hard limit is 0", seen=(held, bit))
    else:
        tally.judge(held=held == [0, 0], bit=bit[0] != 0, seen=(held, bit))


_PIDS = """
mine = {int(name) for name in os.listdir("/proc") if name.isdigit()}
found = [pid for pid in range(1, 32769) if pid not in mine and tries(os.kill, pid, 0) == 0]
tell([sorted(mine), len(found)])
"""


def test_k9_other_processes_do_not_exist(attack: Attack, tally: Any, prelude: str) -> None:
    """A job sees its init and itself, and no other pid answers; the same program outside finds others."""
    held = attack(_PIDS)
    outside = prelude + _PIDS.replace('os.listdir("/proc")', '["1", str(os.getpid())]')
    bit = subprocess.run(["python3", "-c", outside], capture_output=True, text=True, check=True).stdout
    tally.judge(
        held=held[0][0] == 1 and len(held[0]) == 2 and held[1] == 0, bit=not bit.endswith(", 0]\n"), seen=(held, bit)
    )


@pytest.mark.host_root("its control needs host root, so that there is nothing to bite")
def test_k10_no_shared_memory_or_abstract_socket_of_the_host(attack: Attack, tally: Any) -> None:
    """CVE-2020-15257: SysV segments and abstract sockets of the host are not there in the job's own namespaces."""
    program = """
number = 29 if os.uname().machine == "x86_64" else 194
found = call(number, int(sys.argv[1]), 0, 0)
client = socket.socket(socket.AF_UNIX)
tell([found, tries(client.connect, chr(0) + sys.argv[2])])
"""
    with ExitStack() as stack:
        key, name = stack.enter_context(_segment()), f"dayfly-{os.getpid()}"
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(f"\0{name}")
        server.listen()
        held = attack(program, str(key), name)
        bit = attack(program, str(key), name, without=("ipc namespace", "net namespace"))
    tally.judge(
        held=held == [errno.ENOENT, errno.ECONNREFUSED], bit=bit[1] == 0 and bit[0] != errno.ENOENT, seen=(held, bit)
    )


@contextmanager
def _segment() -> Iterator[int]:
    """A SysV shared memory segment of the host that everybody may read: its key."""
    libc = ctypes.CDLL(None, use_errno=True)
    key, create, remove = 0x42000000 + os.getpid() % 0xFFFF, 0o1000, 0
    segment = libc.shmget(key, 4096, create | 0o666)
    assert segment >= 0, os.strerror(ctypes.get_errno())
    try:
        yield key
    finally:
        libc.shmctl(segment, remove, None)


@pytest.mark.host_root("a layer with a device node cannot even be made there")
def test_k11_device_nodes_are_not_made_and_do_not_work(attack: Attack, tally: Any, tmp_path: Path, shape: Any) -> None:
    """mknod is EPERM (but for overlay's whiteout), and a node that an image brings along does not open."""
    layer = tmp_path / "layer"
    layer.mkdir()
    os.mknod(layer / "brought", 0o020666, os.makedev(1, 8))  # /dev/random under another name: harmless if it opens
    layers = (str(layer), *shape.image_layers)
    program = """
import stat
nodes = [(stat.S_IFBLK, 254, 0), (stat.S_IFCHR, 1, 1), (stat.S_IFCHR, 10, 229)]
made = [tries(os.mknod, f"/dev/shm/node{number}", kind | 0o666, os.makedev(*device))
        for number, (kind, *device) in enumerate(nodes)]
tell([made, tries(os.open, "/brought", os.O_RDONLY), tries(os.open, "/dev/random", os.O_RDONLY)])
"""
    held = attack(program, image_layers=layers)
    bit = attack(program, image_layers=layers, without=("user namespace", "capabilities", "bounding"))
    wanted = [[errno.EPERM] * 3, errno.EACCES, 0]
    tally.judge(held=held == wanted, bit=bit[0] == [0, 0, 0], seen=(held, bit))


def test_r8_init_is_not_a_way_out(attack: Attack, tally: Any) -> None:
    """The job can neither signal its init to death nor trace it (CVE-2016-9962)."""
    program = f"""
PTRACE_SEIZE = 0x4206  # ATTACH would stop it for good, where it can
os.kill(1, {signal.SIGKILL.value}); os.kill(1, {signal.SIGSTOP.value})
looks = [tries(os.open, f"/proc/1/{{each}}", os.O_RDONLY) for each in ("mem", "maps", "environ", "fd/0", "root")]
tell([looks, call(101 if os.uname().machine == "x86_64" else 117, PTRACE_SEIZE, 1, 0, 0)])
"""
    held, bit = attack(program), attack(program, without=("undumpable",))
    tally.judge(held=0 not in held[0] and held[1] != 0, bit=0 in bit[0] and bit[1] == 0, seen=(held, bit))
