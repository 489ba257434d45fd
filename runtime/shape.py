"""What a container is, as frozen values that travel as JSON from the agent to the keeper (see `fields_of`).

A `Shape` is all that can be prepared before a job is known; a `Process` is what runs in it. The keeper prepares a
guessed shape ahead of need and starts the job in it when the guess was right, else prepares the right one.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from dayfly.jobs.services import Ready

OWN_DISK = "disk"


def fields_of(value: Any) -> dict[str, Any]:
    """What `json` asks for a frozen value (its `default`): dataclasses.asdict would copy everything deeply."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


@dataclass(frozen=True, slots=True, kw_only=True)
class IoQuota:
    """Limits of one block device ("major:minor", or OWN_DISK), in bytes or operations a second; None is unlimited."""

    device: str
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """What the job's cgroup enforces; None is unlimited. `swap_bytes` counts beside `memory_bytes`, not within."""

    cpus: float | None = None
    cpu_burst_us: int | None = None
    cpu_weight: int | None = None
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    pids: int | None = None
    io: tuple[IoQuota, ...] = ()

    def on(self, own_disk: str | None) -> Self:
        """The same with the job's own disk by its number; None: not known yet, so without its limits."""
        own = tuple(each for each in self.io if each.device == OWN_DISK)
        if not own:
            return self
        others = tuple(each for each in self.io if each.device != OWN_DISK)
        known = () if own_disk is None else tuple(replace(each, device=own_disk) for each in own)
        return replace(self, io=(*others, *known))


@dataclass(frozen=True, slots=True)
class Device:
    """A device that a job may use: `kind` c or b; `minor` None is any. With a `target` below /dev it gets a node.

    `permissions` are of r (read), w (write), m (make), as the control group's list has them.
    """

    kind: str
    major: int
    minor: int | None
    permissions: str = "rw"
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeUse:
    """What a job on the bridge may reach (None: what the operator lets every job), and its limits in bytes a second."""

    allow: tuple[str, ...] | None = None
    ingress_bps: int | None = None
    egress_bps: int | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        allow = document["allow"]
        return cls(**{**document, "allow": None if allow is None else tuple(allow)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a keeper can prepare before it knows its job.

    `image_layers` are absolute directories, the top one first, as overlay's lowerdir wants them; `host_trees` are
    directories of the host (/usr) that get a copy-on-write overlay of their own, for the image `host`.
    `disk_bytes` None is a disk without a limit; `bridge` is there when `network` is "bridge". `is_privileged`: nothing
    of /proc and /sys is masked or read-only, and setuid programs count.
    """

    image_layers: tuple[str, ...]
    host_trees: tuple[str, ...] = ()
    disk_bytes: int | None = None
    shm_bytes: int = 64 << 20
    network: str = "none"
    bridge: BridgeUse | None = None
    quotas: Quotas = Quotas()
    is_privileged: bool = False
    devices: tuple[Device, ...] = ()

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        quotas = dict(document["quotas"])
        quotas["io"] = tuple(IoQuota(**io) for io in quotas["io"])
        return cls(
            image_layers=tuple(document["image_layers"]),
            host_trees=tuple(document["host_trees"]),
            disk_bytes=document["disk_bytes"],
            shm_bytes=document["shm_bytes"],
            network=document["network"],
            bridge=document["bridge"] and BridgeUse.from_json(document["bridge"]),
            quotas=Quotas(**quotas),
            is_privileged=document.get("is_privileged", False),
            devices=tuple(Device(**device) for device in document.get("devices", ())),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A host path that the job sees at `target`, read-only unless `writable`; or `tmpfs`, of `size_bytes` (tmpfs.py).

    It is checked to be still `device` and `inode`, and `owner`'s, as it was when the job was let have it. `own_group`
    is the owner's alone (own_group.py).
    """

    source: str
    target: str
    writable: bool = False
    device: int | None = None
    inode: int | None = None
    owner: int | None = None
    own_group: int | None = None
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Where a job has a secret: in the variable `env`, else as a file. Its value travels apart and is never written."""

    name: str
    env: str | None = None
    file: str | None = None
    mode: int = 0o400


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """The directory below /workspace, seen copy-on-write.

    A live one, which may change meanwhile, is checked to be still `device` and `inode`, and without what its
    .dayflyignore leaves out. `own_group` is its owner's alone (own_group.py).
    """

    source: str
    device: int | None = None
    inode: int | None = None
    is_live: bool = False
    own_group: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The job's command. `user` is "name", "uid", "uid:gid" or empty for root; argv[0] is searched in env's PATH."""

    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: str = "/workspace"
    user: str = ""
    stdin: str | None = None
    hostname: str = "dayfly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """What a job may that others may not, or the other way round; a job without any has None of it.

    `capabilities` is the mask that its root keeps, `ambient` that of another user; `filter_path` is the compiled filter
    of system calls for that mask, None is none; `gains`: setuid programs and file capabilities count.
    """

    capabilities: int
    ambient: int = 0
    filter_path: str | None = None
    gains: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerPlan:
    """One job's container: the shape and everything that only this job has.

    `neighbours` are names that mean 127.0.0.1 in it. With `ready` init tells when the command serves.
    """

    shape: Shape
    process: Process
    mounts: tuple[Mount, ...] = ()
    workspace: Workspace | None = None
    merge_streams: bool = False
    privileges: Privileges | None = None
    secrets: tuple[Secret, ...] = ()
    neighbours: tuple[str, ...] = ()
    ready: Ready | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        process = dict(document["process"])
        process["argv"] = tuple(process["argv"])
        workspace, ready = document["workspace"], document.get("ready")
        return cls(
            shape=Shape.from_json(document["shape"]),
            process=Process(**process),
            mounts=tuple(Mount(**mount) for mount in document["mounts"]),
            workspace=Workspace(**workspace) if workspace else None,
            merge_streams=document["merge_streams"],
            privileges=Privileges(**privileges) if (privileges := document.get("privileges")) else None,
            secrets=tuple(Secret(**secret) for secret in document.get("secrets", ())),
            neighbours=tuple(document.get("neighbours", ())),
            ready=Ready(ready["tcp_port"], tuple(ready["command"])) if ready else None,
        )
