"""The control groups of this host behind one small interface, whichever version they have, or none (absent.py).

`open_hierarchy` looks once per process; what it returns is used by every keeper forked afterwards. Version 1 is taken
where its mounts have the controllers (on a hybrid host version 2 is an empty tree beside them), else version 2.
"""

import os

from dayfly.jobs.errors import HostError, Unsupported
from dayfly.runtime.cgroups import absent, delegation, mounts, v1, v2
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.shape import Quotas

Hierarchy = v1.Hierarchy | v2.Hierarchy | absent.Hierarchy
Cgroup = v1.Cgroup | v2.Cgroup | absent.Cgroup

_ROOTLESS = "run the worker as root, or on a host with version 2 and systemd, which delegates them to users"
_NEEDED = ("cpu", "memory", "pids")


def open_hierarchy(tag: str) -> Hierarchy:
    """The place of our jobs' groups, `dayfly-<tag>`, made if need be.

    Raises `Unsupported` when there are no control groups for us at all, `HostError` when they cannot be set up; a
    rootless worker goes on without. What is missing is in the hierarchy's `lacking`.
    """
    try:
        return _open(tag)
    except HostError as error:
        if own_id_map() is None:
            raise
        return absent.Hierarchy(str(error))


def _open(tag: str) -> Hierarchy:
    mounted = mounts.cgroup_mounts(mounts.read_text("/proc/self/mountinfo"))
    by_controller = {name: each.path for each in reversed(mounted) for name in each.controllers}
    if any(name in by_controller for name in _NEEDED):
        if own_id_map() is not None:
            raise Unsupported("limit jobs", reason="control groups of version 1 are host root's", remedy=_ROOTLESS)
        return v1.Hierarchy(tag, by_controller)
    unified = next((each.path for each in mounted if each.version == 2), None)
    if unified is None:
        raise Unsupported(
            "limit jobs",
            reason="no cgroup file system is mounted",
            remedy="mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        )
    own = mounts.own_group(mounts.read_text("/proc/self/cgroup"))
    base = delegation.find_base(unified, own, is_root=os.geteuid() == 0)
    return v2.Hierarchy(tag, base, delegation.hand_on(base, v2.CONTROLLERS))


def unenforceable(hierarchy: Hierarchy, quotas: Quotas) -> dict[str, str]:
    """The limits among `quotas` that this host cannot enforce, each with the reason: fields of `Quotas` to text.

    A job that states one is refused.
    """
    needs = {
        "cpus": "cpu",
        "cpu_weight": "cpu",
        "cpu_burst_us": "cpu_burst",
        "memory_bytes": "memory",
        "swap_bytes": "swap",
        "pids": "pids",
        "io": "blkio" if hierarchy.version == 1 else "io",
    }
    found = {}
    for field, controller in needs.items():
        if getattr(quotas, field):
            reason = _reason(hierarchy, controller)
            if reason is not None:
                found[field] = reason
    return found


def _reason(hierarchy: Hierarchy, controller: str) -> str | None:
    reason = hierarchy.lacking.get(controller)
    if reason is None and controller in ("swap", "cpu_burst"):
        return hierarchy.lacking.get("memory" if controller == "swap" else "cpu")
    return reason
