"""Where the control groups of this host are mounted, and in which of them this process lives."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CgroupMount:
    """One mounted hierarchy. `root` is the part of it that the mount shows ("/" but in a container)."""

    path: str
    root: str
    version: int
    controllers: frozenset[str] = frozenset()


def read_text(path: str) -> str:
    with open(path) as file:
        return file.read()


def cgroup_mounts(mountinfo: str) -> list[CgroupMount]:
    """Every cgroup mount in /proc/self/mountinfo (proc_pid_mountinfo(5)), whole hierarchies first."""
    found = []
    for line in mountinfo.splitlines():
        mount, _, super_block = line.partition(" - ")
        kind, _, options = super_block.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, path = mount.split(" ")[3:5]
            controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
            found.append(CgroupMount(_unescape(path), root, 1 if kind == "cgroup" else 2, controllers))
    return sorted(found, key=lambda mount: mount.root != "/")


def own_group(cgroup: str) -> str:
    """This process's group in the version 2 hierarchy, from /proc/self/cgroup (`0::/path`)."""
    for line in cgroup.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def group_of(cgroup: str, controllers: Iterable[str]) -> str:
    """A process's group in the trees of version 1 that have one of `controllers`, else in the one of version 2.

    From its /proc/PID/cgroup (`5:memory:/path`).
    """
    for line in cgroup.splitlines():
        _, names, path = line.split(":", 2)
        if not set(names.split(",")).isdisjoint(controllers):
            return path
    return own_group(cgroup)


def _unescape(path: str) -> str:
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
