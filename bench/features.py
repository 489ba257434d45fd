"""What the benched container has on, read back from the kernel."""

from __future__ import annotations

import os
from pathlib import Path

_STATUS = ("Uid", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Seccomp_filters")
_LIMITS = (
    *("cpu.cfs_quota_us", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpu.max", "memory.max"),
    *("memory.swap.max", "pids.max"),
)


def show(pid: int) -> None:
    """Of a job's process `pid`, seen from the host."""
    print("the container, read back from a running job's /proc:")
    own = [name for name in sorted(os.listdir("/proc/self/ns")) if _link(pid, name) != _link("self", name)]
    print(f"  namespaces of its own: {' '.join(name for name in own if 'for_children' not in name)}")
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    print("  " + ", ".join(f"{name} {' '.join(status[name].split())}" for name in _STATUS if name in status))
    print(f"  uid_map: {' '.join(Path(f'/proc/{pid}/uid_map').read_text().split())}")
    mounts = [line.split() for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    # proc_pid_mountinfo(5): the mount point is field 5, the type follows the separator.
    shown = [f"{fields[4]} {fields[fields.index('-') + 1]}" for fields in mounts[:6]]
    print(f"  mounts: {', '.join(shown)} … ({len(mounts)})")
    print(f"  descriptors: {' '.join(sorted(os.listdir(f'/proc/{pid}/fd')))}")
    _show_cgroups(pid)


def _link(pid: int | str, name: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{name}")


def _show_cgroups(pid: int) -> None:
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "dayfly-" not in path:
            continue
        directory = Path("/sys/fs/cgroup") / controllers / path.lstrip("/")
        limits = [f"{name}={(directory / name).read_text().strip()}" for name in _LIMITS if (directory / name).exists()]
        print(f"  cgroup {controllers or 'v2'}: {path} {' '.join(limits)}")
