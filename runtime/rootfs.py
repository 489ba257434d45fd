"""The file tree of a container, as the list of operations that builds it from a shape.

The stage is one directory of empty mount points below DAYFLY_HOME, made once. Every container mounts on the same
points, each in a mount namespace of its own, so nothing of it can be seen or left outside:

    disk    the job's disk, with the upper directories of every overlay
    l0 …    the image's layers, owners mapped into the job's id range
    t0 …    the host's trees (image `host`), likewise
    dev, proc, sys   what the kernel shows of itself, moved below root when that is there
    empty   an empty read-only directory that hides other directories
    names   the files that say who is who (/etc/hosts), when the image's own are not right
    dir     the directory below /workspace, likewise mapped
    root    the container's root

Names are short and relative because overlay's options must fit one page (mount(2)).
"""

import os
import stat

from dayfly.runtime.disk_template import Directory
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.operations import (
    AttachDisk,
    Bind,
    Detach,
    HostDevice,
    MakeDirectory,
    MapTree,
    Mask,
    Mount,
    Move,
    Node,
    Operation,
    Overlay,
    ReadOnly,
    ShowTree,
    Symlink,
)
from dayfly.runtime.shape import Device, Shape
from dayfly.runtime.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, MS_STRICTATIME

BUNDLE = "/run/dayfly"
"""What an OCI runtime is given, in the mount namespace that it is run in."""

DEV_MOUNTS = (("dev", "/dev"), ("pts", "/dev/pts"), ("shm", "/dev/shm"), ("mqueue", "/dev/mqueue"))
"""Mounts that the runtime is told to bind, each by itself: by their names in the bundle."""

MAX_LAYERS = 128  # overlay itself takes 500; Docker stops at 127

_SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
_DEVICES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)
# Docker's lists (moby, daemon/pkg/oci/defaults.go) and what Podman's have beyond them (containers/common, pkg/config):
# what tells a job about the host, or lets it reach the kernel.
_MASKED = (
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/dev/block",
    "sys/devices/virtual/powercap",
    "sys/firmware",
    "sys/fs/selinux",
    # Beyond both: the kernel's command line may hold secrets, everybody may write to pressure files (triggers), dmi
    # names the machine; the others help to aim at the kernel.
    "proc/cmdline",
    "proc/config.gz",
    "proc/pressure",
    "sys/devices/virtual/dmi",
    "sys/kernel/vmcoreinfo",
)
_READ_ONLY = ("proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger")
_TTY_GROUP = 5  # Debian's and Docker's gid of the group tty


def make_stage(home: str) -> str:
    """Make the stage below `home` and return its path."""
    stage = f"{home}/stage"
    names = [
        "disk",
        "dev",
        "proc",
        "sys",
        "empty",
        "names",
        "dir",
        "root",
        *(f"l{i}" for i in range(MAX_LAYERS)),
        *(f"t{i}" for i in range(8)),
    ]
    for name in names:
        os.makedirs(f"{stage}/{name}", 0o700, exist_ok=True)
    return stage


def layout(host_trees: tuple[str, ...]) -> tuple[Directory, ...]:
    """The directories a fresh disk has: an upper and a work directory for each overlay, and in the root's upper the
    points that the container mounts on.

    Being in the *upper*, those cover whatever the image has there: a symlink at /proc or /dev (CVE-2019-19921,
    CVE-2026-41579) is simply hidden.
    """
    plain = ["root", "root/upper", "root/work", "workspace", "workspace/upper", "workspace/work"]
    points = [f"root/upper/{point}" for point in ("proc", "sys", "dev", "workspace")]
    trees = ["trees"] if host_trees else []
    for index, tree in enumerate(host_trees):
        trees += [f"trees/{index}", f"trees/{index}/upper", f"trees/{index}/work", f"root/upper{tree}"]
    return (*(Directory(name) for name in [*plain, *points, *trees]), Directory("root/upper/tmp", 0o1777))


def proc_operations(shape: Shape) -> list[Operation]:
    """Build /proc. To be applied in the stage by PID 1, whose PID namespace it shows."""
    read_only = () if shape.is_privileged else _READ_ONLY
    return [Detach(), Mount("proc", "proc", _SAFE), *(ReadOnly(path) for path in read_only)]


def kernel_operations(shape: Shape, ids: IdMap, user_namespace: int, notes: list[str]) -> list[Operation]:
    """Build /dev and /sys, and map the layers: all that needs no disk, after the net and ipc namespaces were entered.

    What the job's result should say is added to `notes`.
    """
    trees = [*zip(shape.image_layers, _layers(shape), strict=True)]
    trees += [(tree, f"t{index}") for index, tree in enumerate(shape.host_trees)]
    return [
        *(_tree(source, point, ids, user_namespace, notes) for source, point in trees),
        *_device_operations(shape, ids),
        _sysfs(shape, ids),
        *([] if shape.is_privileged else _masks(shape, ids)),
    ]


def tree_operations(
    shape: Shape, disk_fd: int, ids: IdMap, user_namespace: int, has_cgroup2: bool, own: str = "disk"
) -> list[Operation]:
    """Build the root on the job's disk, of what the others have made. After the cgroup namespace was entered.

    `own`: the directory of the disk, below the stage, that has this container's `layout`.
    """
    switches = {"setuid_counts": shape.is_privileged, "has_user_marks": not ids.is_mounted}
    operations: list[Operation] = [
        AttachDisk(disk_fd, "disk", user_namespace, shape.is_privileged, is_mapped=ids.is_mounted),
        Overlay(_layers(shape), f"{own}/root/upper", f"{own}/root/work", "root", **switches),
    ]
    for index, tree in enumerate(shape.host_trees):
        upper, work = f"{own}/trees/{index}/upper", f"{own}/trees/{index}/work"
        operations.append(Overlay((f"t{index}",), upper, work, f"root{tree}", **switches))
    operations.append(Bind(f"{own}/workspace/upper", "root/workspace"))
    if has_cgroup2:
        operations.append(Mount("cgroup2", "sys/fs/cgroup", _SAFE | MS_RDONLY))
    return [*operations, *(Move(name, f"root/{name}") for name in ("dev", "proc", "sys"))]


def handover_operations() -> list[Operation]:
    """Bring the root to where the job's user namespace may go, whose root has no way through DAYFLY_HOME.

    To `BUNDLE`/root, on a /run of this mount namespace's own; and what is at /dev beside it, by `DEV_MOUNTS`.
    """
    mounted = [*((f"root{point}", name) for name, point in reversed(DEV_MOUNTS)), ("root", "root")]
    moves = [each for source, name in mounted for each in _brought(source, f"{BUNDLE}/{name}")]
    return [Mount("tmpfs", "/run", _SAFE, "mode=755,size=8m"), MakeDirectory(BUNDLE), *moves]


def _brought(source: str, target: str) -> list[Operation]:
    return [MakeDirectory(target), Move(source, target)]


def _layers(shape: Shape) -> tuple[str, ...]:
    return tuple(f"l{index}" for index in range(len(shape.image_layers)))


def _tree(source: str, point: str, ids: IdMap, user_namespace: int, notes: list[str]) -> Operation:
    return MapTree(source, point, user_namespace, notes) if ids.is_mounted else ShowTree(source, point)


def _sysfs(shape: Shape, ids: IdMap) -> Operation:
    """sysfs shows the network namespace, so only its owner may mount it: of the host's network that is host root."""
    if _shows_hosts_sysfs(shape, ids):
        return ShowTree("/sys", "sys")
    return Mount("sysfs", "sys", _SAFE if shape.is_privileged else _SAFE | MS_RDONLY)


def _shows_hosts_sysfs(shape: Shape, ids: IdMap) -> bool:
    return shape.network == "host" and not ids.is_mounted


def _device_operations(shape: Shape, ids: IdMap) -> list[Operation]:
    own = f"uid={ids.first},gid={ids.first}"
    return [
        Mount("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, f"mode=755,size=64k,{own}"),
        *(_device(name, major, minor, ids) for name, major, minor in _DEVICES),
        *(Symlink(f"dev/{name}", to) for name, to in _LINKS),
        *(MakeDirectory(f"dev/{name}") for name in ("pts", "shm", "mqueue")),
        Mount("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, _devpts_options(ids)),
        Mount("tmpfs", "dev/shm", _SAFE, f"mode=1777,size={shape.shm_bytes},{own}"),
        Mount("mqueue", "dev/mqueue", _SAFE),
        *(Node(each.target[1:], each.major, each.minor or 0, _mode(each)) for each in shape.devices),
    ]


def _mode(device: Device) -> int:
    """For owner and group, who will be the job's user (`inputs.py`), whatever the host's node has."""
    kind = stat.S_IFBLK if device.kind == "b" else stat.S_IFCHR
    return kind | (0o440 if "r" in device.permissions else 0) | (0o220 if "w" in device.permissions else 0)


def _device(name: str, major: int, minor: int, ids: IdMap) -> Operation:
    return Node(f"dev/{name}", major, minor) if ids.is_mounted else HostDevice(f"dev/{name}", f"/dev/{name}")


def _devpts_options(ids: IdMap) -> str:
    group = "" if ids.is_single else f",gid={ids.first + _TTY_GROUP}"
    return f"newinstance,ptmxmode=0666,mode=0620{group}"


def _masks(shape: Shape, ids: IdMap) -> list[Operation]:
    masked = [*_MASKED, *_thermal_throttles()]
    if _shows_hosts_sysfs(shape, ids):
        masked.append("sys/fs/cgroup")  # mounted there, which a sysfs of one's own does not show
    empty = Mount("tmpfs", "empty", _SAFE | MS_RDONLY, "size=4k,mode=755")
    return [empty, *(Mask(path, "dev/null", "empty") for path in masked)]


def _thermal_throttles() -> list[str]:
    cpus = f"{os.sysconf('SC_NPROCESSORS_CONF')}"
    return [f"sys/devices/system/cpu/cpu{index}/thermal_throttle" for index in range(int(cpus))]
