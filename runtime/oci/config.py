"""config.json of a bundle: what an OCI runtime is told of one job (runtime-spec, config.md and config-linux.md).

It is told little, for the container stands already: the root is mounted with everything below it, the control group
has its limits, the namespaces but two are there to be joined. What is left for the runtime is what only the process
itself can be given: a mount namespace, its ids, capabilities, filter, and the execve(2).
"""

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dayfly.runtime import capabilities
from dayfly.runtime.cgroups.devices import STANDARD
from dayfly.runtime.idrange import RANGE_SIZE
from dayfly.runtime.rootfs import BUNDLE, DEV_MOUNTS
from dayfly.runtime.shape import ContainerPlan, Device, Privileges
from dayfly.runtime.users import Identity

_VERSION = "1.0.2"
_VICTIM_FIRST = 1000  # oom_score_adj, as init gives it
_INFINITE = (1 << 64) - 1  # RLIM_INFINITY, which Python has as -1
_JOINED = (("user", "user"), ("ipc", "ipc"), ("uts", "uts"), ("network", "net"), ("pid", "pid"))


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands already: PID 1 by its host's number, its control group, the job's ids."""

    first_pid: int
    group: str
    first_id: int


def document(
    plan: ContainerPlan,
    privileges: Privileges,
    identity: Identity,
    env: Mapping[str, str],
    standing: Standing,
    seccomp: object | None,
) -> dict[str, Any]:
    """The whole file. `env` has the job's secrets too; `seccomp` is `seccomp_section.section`, None for no filter."""
    linux: dict[str, Any] = {
        "uidMappings": [_mapping(standing)],
        "gidMappings": [_mapping(standing)],
        "namespaces": [*_namespaces(plan.shape.network, standing.first_pid), {"type": "mount"}, {"type": "cgroup"}],
        "cgroupsPath": standing.group,
        "resources": {"devices": [{"allow": False, "access": "rwm"}, *map(_rule, (*STANDARD, *plan.shape.devices))]},
    }
    return {
        "ociVersion": _VERSION,
        "root": {"path": f"{BUNDLE}/root"},
        "process": _process(plan, privileges, identity, env),
        # A runtime adds nodes of its own to a /dev that is not bound. Mount by mount, since crun 1.8 binds no tree.
        "mounts": [
            {"destination": point, "type": "bind", "source": f"{BUNDLE}/{name}", "options": ["bind"]}
            for name, point in DEV_MOUNTS
        ],
        "linux": linux if seccomp is None else {**linux, "seccomp": seccomp},
    }


def _process(plan: ContainerPlan, privileges: Privileges, identity: Identity, env: Mapping[str, str]) -> dict[str, Any]:
    process = plan.process
    return {
        "terminal": False,
        "user": {
            "uid": identity.uid,
            "gid": identity.gid,
            "additionalGids": list(identity.groups),
            "umask": 0o022,
        },
        "args": list(process.argv),
        "env": [f"{name}={value}" for name, value in env.items()],
        "cwd": process.cwd,
        "capabilities": _capabilities(privileges, identity),
        "rlimits": [_rlimit("RLIMIT_CORE"), _rlimit("RLIMIT_NOFILE")],
        "noNewPrivileges": not privileges.gains,
        "oomScoreAdj": _VICTIM_FIRST,
    }


def _capabilities(privileges: Privileges, identity: Identity) -> dict[str, list[str]]:
    """As `init.become` sets them: a user who is not root holds what was asked for by name, and nothing else."""
    ambient = privileges.ambient if identity.uid else 0
    held = ambient if identity.uid else privileges.capabilities
    sets = {"bounding": privileges.capabilities, "effective": held, "permitted": held}
    return {name: _names(mask) for name, mask in {**sets, "inheritable": ambient, "ambient": ambient}.items()}


def _names(mask: int) -> list[str]:
    return [f"CAP_{name}" for name, number in capabilities.NUMBERS.items() if mask >> number & 1]


def _rlimit(name: str) -> dict[str, Any]:
    """The monitor has set its own (`init.limit_resources`)."""
    soft, hard = (_INFINITE if limit < 0 else limit for limit in resource.getrlimit(getattr(resource, name)))
    return {"type": name, "soft": soft, "hard": hard}


def _namespaces(network: str, pid: int) -> list[dict[str, str]]:
    joined = [each for each in _JOINED if each[0] != "network" or network != "host"]
    return [{"type": kind, "path": f"/proc/{pid}/ns/{name}"} for kind, name in joined]


def _mapping(standing: Standing) -> dict[str, int]:
    return {"containerID": 0, "hostID": standing.first_id, "size": RANGE_SIZE}


def _rule(device: Device) -> dict[str, Any]:
    rule = {"allow": True, "type": device.kind, "major": device.major, "access": device.permissions}
    return rule if device.minor is None else {**rule, "minor": device.minor}
