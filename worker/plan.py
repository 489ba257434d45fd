"""From a job's spec, its image and what the operator decided to the record that a keeper runs.

What this worker must not or cannot do for the job is a SpecError with the field's path: the job is rejected with it,
never run with less than it asked for.
"""

import os
import posixpath
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dayfly.jobs.demand import Capacity, Demand
from dayfly.jobs.errors import SpecError, StoreError
from dayfly.jobs.mounts import TMPFS
from dayfly.jobs.network import Network
from dayfly.jobs.program import script_command
from dayfly.jobs.spec import OWN_DISK, IoLimit, JobSpec
from dayfly.runtime.bundle import path_of
from dayfly.runtime.cgroups.hierarchy import Hierarchy, unenforceable
from dayfly.runtime.idrange import RANGE_SIZE, own_id_map
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.images.image import DEFAULT_PATH, Image
from dayfly.runtime.own_group import own_group
from dayfly.runtime.shape import OWN_DISK as MOUNTED_DISK
from dayfly.runtime.shape import ContainerPlan, IoQuota, Mount, Process, Quotas, Secret, Shape, Workspace
from dayfly.worker import switches
from dayfly.worker.bridging import Bridging
from dayfly.worker.host import host_id
from dayfly.worker.image_program import argv_of
from dayfly.worker.places import Places
from dayfly.worker.record import ServicePlan
from dayfly.worker.service_plan import plan_services
from dayfly.worker.settings import WorkerSettings
from dayfly.worker.writable_mounts import check_roots

WORKSPACE = "/workspace"
_Number = TypeVar("_Number", int, float)
_MIB = 1 << 20
_RUNTIME_PIDS = 16  # runc begins in the job's group, with six threads at least


@dataclass(frozen=True, slots=True)
class Identity:
    """What of a claim the plan needs."""

    job_id: str
    attempt: int


class Planner:
    """Makes plans for one worker. `why_unlimited`: why a job's disk cannot be limited here, None where it can."""

    def __init__(
        self, settings: WorkerSettings, share: Capacity, hierarchy: Hierarchy, why_unlimited: str | None
    ) -> None:
        self.bridging = Bridging(settings)
        self._settings = settings
        places = Places(settings.home)
        self._of_builds = tuple(Path(os.path.realpath(each)) for each in (places.builds, places.build_caches))
        self._share = share
        self._hierarchy = hierarchy
        self._why_unlimited = why_unlimited
        self._has_swap_limit = not unenforceable(hierarchy, Quotas(memory_bytes=1 << 30, swap_bytes=1))
        ids = own_id_map()
        self._has_one_id = ids is not None and ids.is_single
        self._has_other_ids = ids is not None and not ids.is_single
        self._cannot = unenforceable(hierarchy, Quotas(cpus=1.0, memory_bytes=1 << 30, pids=1))

    def plan(
        self, spec: JobSpec, image: Image, identity: Identity, stdin: str | None, *, is_step: bool = False
    ) -> ContainerPlan:
        """The container for one attempt; `stdin` is where the job's standard input will lie. Raises SpecError.

        `is_step`: of a build of this worker, which has mounts from where builds keep theirs.
        """
        mountable = self._of_builds if is_step else self._settings.allow.mounts
        return ContainerPlan(
            shape=self.shape(spec, image),
            process=self._process(spec, image, identity, stdin),
            mounts=tuple(self._mount(number, spec, mountable) for number in range(len(spec.mounts))),
            workspace=self._workspace(spec),
            merge_streams=spec.merge_streams,
            privileges=switches.privileges(spec, self._settings.home),
            secrets=tuple(
                Secret(name=each.name, env=each.env, file=each.file, mode=each.mode) for each in spec.secrets
            ),
            neighbours=tuple(service.name for service in spec.services),
        )

    def shape(self, spec: JobSpec, image: Image) -> Shape:
        """What can be prepared before the job comes: the same for all jobs that state the same limits."""
        mode = self.bridging.mode(spec)
        switches.check_image("image", image, self._settings)
        if len(image.layers) > ImportLimits().layers:
            raise SpecError("image", f"has {len(image.layers)} layers, and a container at most {ImportLimits().layers}")
        switches.check(spec, self._settings.allow)
        shm = spec.limits.shm_bytes
        return Shape(
            image_layers=image.layers,
            host_trees=image.host_trees,
            disk_bytes=self._disk_bytes(spec),
            shm_bytes=self._settings.defaults.shm_bytes if shm is None else shm,
            network=mode.value,
            bridge=self.bridging.use(spec) if mode is Network.BRIDGE else None,
            quotas=self._quotas(spec),
            is_privileged=spec.privileged,
            devices=switches.devices(spec, self._settings.allow, self._hierarchy.lacking),
        )

    def services(self, spec: JobSpec, images: Sequence[Image], job: Shape) -> tuple[ServicePlan, ...]:
        """What runs beside a job of the shape `job`; `images` are those of its services. Raises SpecError."""
        if spec.services and self._settings.oci_runtime is not None:
            raise SpecError("services", f"this worker starts jobs by {self._settings.oci_runtime}, with nothing beside")
        return plan_services(spec.services, images, job, self._settings, self._hierarchy)

    def build_context(self, spec: JobSpec) -> str | None:
        """The directory that a build copies from; None when it has none. Raises SpecError."""
        if spec.dir is None:
            return None
        if spec.dir.bundle is None:
            raise SpecError("dir", "a build's must be frozen, as `dayfly submit` freezes it: its files must not change")
        return self._bundle(spec.dir.bundle)

    def timeout_seconds(self, spec: JobSpec) -> float | None:
        return self._settings.defaults.timeout_seconds if spec.timeout_seconds is None else spec.timeout_seconds

    def stop_grace_seconds(self, spec: JobSpec) -> float:
        stated = spec.stop_grace_seconds
        return self._settings.defaults.stop_grace_seconds if stated is None else stated

    def need(self, spec: JobSpec) -> Capacity:
        return Demand.of(spec).need(self._share)

    def _disk_bytes(self, spec: JobSpec) -> int | None:
        stated = spec.limits.disk_bytes
        if self._why_unlimited is None:
            return stated or self._share.disk_mib * _MIB
        if stated is not None:
            raise SpecError("limits.disk", f"this worker cannot enforce it: {self._why_unlimited}")
        return None

    def _quotas(self, spec: JobSpec) -> Quotas:
        own = next((number for number, limit in enumerate(spec.limits.io) if limit.device == OWN_DISK), None)
        if own is not None and self._why_unlimited is not None:
            raise SpecError(f"limits.io[{own}]", f"this worker cannot enforce it: {self._why_unlimited}")
        stated = Quotas(
            cpus=spec.limits.cpus,
            cpu_burst_us=_microseconds(spec.limits.cpu_burst_seconds),
            cpu_weight=spec.limits.cpu_weight,
            memory_bytes=spec.limits.memory_bytes,
            swap_bytes=spec.limits.swap_bytes,
            pids=spec.limits.pids,
            io=tuple(_io_quota(number, limit) for number, limit in enumerate(spec.limits.io)),
        )
        for field, reason in unenforceable(self._hierarchy, stated).items():
            raise SpecError(_LIMIT_NAMES[field], f"this worker cannot enforce it: {reason}")
        if stated.pids and stated.pids < _RUNTIME_PIDS and self._settings.oci_runtime is not None:
            needs = f"this worker's OCI runtime needs {_RUNTIME_PIDS} processes and threads to start a job"
            raise SpecError("limits.pids", f"{needs}, got {stated.pids}")
        return Quotas(
            cpus=stated.cpus or self._unless_lacking("cpus", self._share.cpus_milli / 1000),
            cpu_burst_us=stated.cpu_burst_us,
            cpu_weight=stated.cpu_weight,
            memory_bytes=stated.memory_bytes or self._unless_lacking("memory_bytes", self._share.memory_mib * _MIB),
            swap_bytes=0 if stated.swap_bytes is None and self._has_swap_limit else stated.swap_bytes,
            pids=stated.pids or self._unless_lacking("pids", self._settings.defaults.pids),
            io=stated.io,
        )

    def _unless_lacking(self, field: str, value: _Number) -> _Number | None:
        return None if field in self._cannot else value

    def _process(self, spec: JobSpec, image: Image, identity: Identity, stdin: str | None) -> Process:
        user = spec.user if spec.user is not None else image.config.user
        if self._has_one_id and user not in ("", "0", "root", "0:0"):
            raise SpecError("user", f"this worker's user has no ids for {user}: apt-get install uidmap, see subuid(5)")
        return Process(
            argv=_argv(spec, image),
            env=_environment(spec, image, identity),
            cwd=_directory(spec, image),
            user=user,
            stdin=stdin,
        )

    def _mount(self, number: int, spec: JobSpec, allowed: tuple[Path, ...] | None) -> Mount:
        mount = spec.mounts[number]
        if mount.source == TMPFS:
            return Mount(source=TMPFS, target=mount.target, writable=True, size_bytes=mount.size_bytes)
        path = f"mounts[{number}].source"
        source = self._allowed(path, mount.source, allowed, "mounts")
        facts = os.stat(source)
        if mount.writable and self._has_other_ids and facts.st_uid >= RANGE_SIZE and not facts.st_mode & stat.S_IWOTH:
            raise SpecError(f"mounts[{number}].writable", f"{source} is not writable for others, {_OTHER_IDS}")
        if mount.writable and allowed is not None and own_id_map() is None:
            check_roots(f"mounts[{number}].writable", source, facts)
        return Mount(
            source=source,
            target=mount.target,
            writable=mount.writable,
            device=facts.st_dev,
            inode=facts.st_ino,
            owner=facts.st_uid,
            own_group=own_group(facts.st_uid),
        )

    def _workspace(self, spec: JobSpec) -> Workspace | None:
        directory = spec.dir
        if directory is None:
            return None
        if directory.bundle is not None:
            return _workspace(self._bundle(directory.bundle))
        if directory.path is None or directory.host != host_id():
            raise SpecError("dir", f"lies on host {directory.host}, this is {host_id()}")
        source = self._allowed("dir", directory.path, self._settings.allow.dirs, "dirs")
        return _workspace(source, device=directory.device, inode=directory.inode, is_live=True)

    def _bundle(self, digest: str) -> str:
        try:
            return path_of(digest, self._settings.home / "bundles")
        except StoreError as error:
            raise SpecError("dir.bundle", error.message) from error

    def _allowed(self, path: str, source: str, allowed: tuple[Path, ...] | None, key: str) -> str:
        """`source` without links, when the operator lets jobs have it."""
        try:
            real = os.path.realpath(source, strict=True)
        except OSError as error:
            raise SpecError(path, f"{source} cannot be used on this worker: {error.strerror}") from error
        if allowed is None or any(Path(real).is_relative_to(each) for each in allowed):
            return real
        raise SpecError(path, f"the operator of this worker does not allow {real} ([allow] {key})")


def _workspace(source: str, **facts: Any) -> Workspace:
    return Workspace(source=source, own_group=own_group(os.stat(source).st_uid), **facts)


_OTHER_IDS = (
    "and a rootless worker's jobs have other ids than its user: chmod o+w, or take what they write as artifacts"
)
_LIMIT_NAMES = {
    "cpus": "limits.cpus",
    "cpu_burst_us": "limits.cpu_burst",
    "cpu_weight": "limits.cpu_weight",
    "memory_bytes": "limits.memory",
    "swap_bytes": "limits.swap",
    "pids": "limits.pids",
    "io": "limits.io",
}


def _argv(spec: JobSpec, image: Image) -> tuple[str, ...]:
    if spec.script is not None:
        return script_command(spec.script)
    return argv_of(spec.entrypoint, spec.command, image, "command")


def _environment(spec: JobSpec, image: Image, identity: Identity) -> dict[str, str]:
    """What image and document name, and nothing of the worker's. HOME is init's to add: it knows the user."""
    return {
        "PATH": DEFAULT_PATH,
        **image.config.env,
        "CI": "true",
        **spec.env,
        "DAYFLY_JOB_ID": identity.job_id,
        "DAYFLY_ATTEMPT": str(identity.attempt),
        "DAYFLY_WORKSPACE": WORKSPACE,
    }


def _directory(spec: JobSpec, image: Image) -> str:
    """The image's own command starts where the image says; what the job brings starts in its workspace."""
    if spec.workdir is not None:
        return posixpath.join(WORKSPACE, spec.workdir)
    is_images_own = spec.script is None and spec.command is None and spec.dir is None
    return (image.config.workdir if is_images_own else "") or WORKSPACE


def _io_quota(number: int, limit: IoLimit) -> IoQuota:
    return IoQuota(
        device=_device(number, limit.device),
        read_bps=limit.read_bps,
        write_bps=limit.write_bps,
        read_iops=limit.read_iops,
        write_iops=limit.write_iops,
    )


def _device(number: int, device: str) -> str:
    if device == OWN_DISK:
        return MOUNTED_DISK
    path = f"limits.io[{number}].device"
    if not device.startswith("/"):
        return _whole_disk(path, device, ":".join(str(int(part)) for part in device.split(":")))
    try:
        found = os.stat(device)
    except OSError as error:
        raise SpecError(path, f"{device}: {error.strerror}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise SpecError(path, f"{device} is not a block device")
    return _whole_disk(path, device, f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}")


def _whole_disk(path: str, device: str, numbers: str) -> str:
    """`numbers`, where the kernel can limit that device: it has it, and it is no part of another (blk-cgroup.c)."""
    known = f"/sys/dev/block/{numbers}"
    if os.path.isdir("/sys/dev/block") and not os.path.exists(known):
        raise SpecError(path, f"this worker's host has no block device {device}")
    if os.path.exists(f"{known}/partition"):
        raise SpecError(path, f"{device} is a partition, and only whole disks can be limited")
    return numbers


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000_000)
