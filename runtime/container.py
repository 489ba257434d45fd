"""A container, from the keeper's side: prepare it ahead, start a job in it, hear of its end, discard it.

Theory of operation
-------------------
Two processes make a container, at the same time. The *keeper* (host root, outside of the container) owns it. *init* is
forked first, into a new PID namespace, and is its PID 1 (`init.py`): the fewer pages the keeper has touched by then,
the fewer are copied again.

Prepared ahead, from a `Shape`, before any job is known, once the keeper holds a range of ids (`idrange.py`):
 1. by the keeper: a control group with its limits, and with a list of devices if the job asks for any; a disk of the
    quota's size (or, on a host that has no such disks, a directory: `directory_disk.py`);
 2. by init meanwhile: it will die with the keeper; it enters a mount namespace that *host* root owns, so that nothing
    the job may ever become can change a mount; /proc (needs the PID namespace); user, net, IPC and UTS namespaces,
    made by a short-lived child since they must belong to the job's user namespace (`namespaces.py`); loopback up;
    layers with mapped owners, /dev, /sys (needs the net namespace), masks;
 3. init gets the disk and the control group from the keeper, joins the group, and leaves for a cgroup namespace whose
    root that group is;
 4. the root: overlays on the disk, and /dev, /proc and /sys moved into it. All in the stage, beside the host's tree,
    since a job's inputs are still to come;
 5. for a job on the bridge: its end of a veth pair, with addresses and routes (`network/wire.py`).
Done at "go", which is the only part that a job waits for:
 6. inputs: the directory, the mounts (need the host's tree);
 7. pivot, and let go of the host's tree; only then
 8. enter the user namespace: what host root had to do is done. Cut the bounding set while CAP_SETPCAP is there, set
    ids, lower the capabilities, become undumpable *before* the job can look at /proc/1 (CVE-2019-5736,
    CVE-2016-9962), no_new_privs, and the seccomp filter last, as it forbids most of the above;
 9. spawn the command in a session of its own. init holds no descriptor of the host by then: everything the keeper had
    open was closed in step 2, the disk and the group in step 4 (CVE-2024-21626).
A container is never used twice.

A worker without root's rights (`user_namespace.py`) does the same in a user namespace of its own, whose root stands for
host root above. It cannot mount the host's file systems with mapped owners, nor make devices, nor come back from a PID
namespace: so files have the job's ids on disk, devices are the host's, and init is born by clone(2) (`IdMap` tells).

The end: init reaps the command, says so down the channel and leaves; the kernel kills whatever else is in the PID
namespace. Tearing the namespaces down takes the kernel 1.6 ms, so the end is told first; when the command was the last
process (`alone`) nobody needs to wait for the rest.

What a SIGKILL of the keeper leaves: init and all its processes die (PR_SET_PDEATHSIG, PID namespace), mounts, disk and
loop device go with the descriptors, a veth pair with the network namespace. The control group's directories stay, by
the token's name, for the sweeper, and so does a disk that is a directory.
"""

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups import absent, v1
from dayfly.runtime.cgroups.devices import STANDARD
from dayfly.runtime.cgroups.hierarchy import Cgroup, Hierarchy
from dayfly.runtime.cgroups.readings import Oom, Pressure, Sample, Usage
from dayfly.runtime.directory_disk import UNLIMITED, DirectoryDisk, open_directory_disk
from dayfly.runtime.disk import Disk, open_disk
from dayfly.runtime.disk_template import Directory
from dayfly.runtime.idrange import IdMap, IdRange, own_id_map
from dayfly.runtime.init import Birthright
from dayfly.runtime.init_process import InitProcess, Refusal
from dayfly.runtime.network.wire import Wire, take_place
from dayfly.runtime.rootfs import layout
from dayfly.runtime.shape import ContainerPlan, Quotas, Shape

if TYPE_CHECKING:
    from dayfly.runtime.oci.oci_runtime import OciRuntime

_NO_SECRETS: Mapping[str, str] = {}
_NOTHING_SHARED: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Host:
    """What all containers of a host share, made once by the launcher. `oci`: what starts their commands, unless we."""

    home: str
    stage: str
    hierarchy: Hierarchy
    seccomp_filter: bytes
    ids: IdMap | None = field(default_factory=own_id_map)
    """What all jobs have, of a rootless worker; None: each has a range of its own."""
    oci: "OciRuntime | None" = None
    network_requests: int = -1
    """Where a container on the bridge asks for its link (`network/wire.py`)."""

    def birthright(
        self, shape: Shape, ids: IdMap, shared: Mapping[str, int] = _NOTHING_SHARED, directory: str = "disk"
    ) -> Birthright:
        """What the init of a container here inherits; `shared` and `directory` as Birthright has them."""
        return Birthright(
            shape=shape,
            ids=ids,
            has_cgroup2=self.hierarchy.version == 2,
            has_pids_limit=ids.is_mounted or "pids" not in self.hierarchy.lacking,
            seccomp_filter=self.seccomp_filter,
            shared=shared,
            directory=directory,
        )


class Container:
    """One container. What it is made of is released in the reverse order by `discard`, which may be called twice."""

    def __init__(
        self,
        host: Host,
        shape: Shape,
        effective: Quotas,
        ids: IdMap,
        cgroup: Cgroup,
        disk: Disk | DirectoryDisk,
        init: InitProcess,
        wire: Wire | None,
        parts: ExitStack,
    ) -> None:
        self.shape = shape
        self.effective = effective
        self.ids = ids
        self.disk = disk
        self.init = init
        self._host = host
        self.wire = wire
        self._cgroup = cgroup
        self._parts = parts
        self._before = cgroup.cpu_seconds()

    @classmethod
    def prepare(cls, host: Host, shape: Shape, token: str) -> "Container":
        """Make a container of `shape` whose control group is `token`, up to its waiting init. Raises `HostError`."""
        with ExitStack() as parts:
            ids, place = _take_ids(host, shape, parts)
            init = _fork(host, host.birthright(shape, ids))
            parts.callback(init.close)
            cgroup = host.hierarchy.create(token, with_devices=_has_list(host, shape))
            parts.callback(cgroup.discard)
            cgroup.apply(shape.quotas.on(None))
            if _has_list(host, shape):
                cgroup.restrict((*STANDARD, *shape.devices))
            disk = _open_disk(host.home, shape.disk_bytes, token, layout(shape.host_trees), ids)
            parts.callback(disk.discard)
            if shape.quotas.io:
                cgroup.apply(shape.quotas.on(disk.number))
            effective = cgroup.effective()
            parts.callback(init.close)  # from here on it holds both, and must go before them
            init.await_ready(disk.mount_fd, cgroup.joins)
            wire = _attach(host, shape, place, init, parts)
            return cls(host, shape, effective, ids, cgroup, disk, init, wire, parts.pop_all())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the job's result should say of its container."""
        no_disk = (UNLIMITED,) if isinstance(self.disk, DirectoryDisk) else ()
        no_group = (absent.UNLIMITED,) if isinstance(self._cgroup, absent.Cgroup) else ()
        return (*self.init.notes, *no_disk, *no_group)

    def start(self, plan: ContainerPlan, stop_signal: int, secrets: Mapping[str, str] = _NO_SECRETS) -> Refusal | None:
        """Run the plan's command. None when it has been executed. Raises `HostError` when the container failed.

        `secrets` has the values of the plan's secrets by name, in base64.
        """
        oci = self._host.oci
        if oci is None:
            return self.init.start(plan, stop_signal, secrets)
        refusal = self.init.start(plan, stop_signal, secrets, seccomp=oci.section(plan.privileges))
        if refusal is None and isinstance(self._cgroup, v1.Cgroup) and _has_list(self._host, self.shape):
            # The runtime has added tun, and mknod of any kind; until then the job lacks the node, and the capability.
            self._cgroup.narrow((*STANDARD, *self.shape.devices))
        return refusal

    def divide(self) -> None:
        """Be ready for containers beside this one (sibling.py): their groups lie within its own. Raises `HostError`."""
        self._cgroup.divide(self.init.pid)

    def group_within(self, name: str) -> Cgroup:
        """The control group of one of them. Raises `HostError`."""
        return self._cgroup.within(name)

    def current(self) -> Sample:
        """Cheap readings of this moment."""
        return self._cgroup.current()

    def usage(self) -> Usage:
        """What the job used; the processor time of the preparation is not the job's."""
        now = self._cgroup.usage()
        user, system = self._before
        return replace(
            now,
            cpu_user_seconds=_difference(now.cpu_user_seconds, user),
            cpu_system_seconds=_difference(now.cpu_system_seconds, system),
        )

    def oom(self) -> Oom:
        """What the kernel killed for the job's memory limit."""
        return self._cgroup.oom()

    def pressure(self) -> Pressure | None:
        """Time the job was stalled, where this kernel tells."""
        return self._cgroup.pressure()

    def unthrottle(self) -> None:
        """Lift the limits of io: what waits for them cannot be killed, and what is still to be written would wait."""
        if self.shape.quotas.io:
            with suppress(HostError):  # then the end takes as long as the limit makes it
                self._cgroup.apply(replace(self.shape.quotas, io=()))

    def discard(self) -> None:
        """Kill, unmount, free. What was written and not collected is lost, which is the point of it."""
        self.unthrottle()
        self._parts.close()


def _take_ids(host: Host, shape: Shape, parts: ExitStack) -> tuple[IdMap, int]:
    """The container's ids, and its place on the bridge: that of its ids, where each container has its own."""
    if host.ids is None:
        taken = IdRange.acquire()
        parts.callback(taken.place.release)
        return taken.ids, taken.place.index
    if shape.bridge is None:
        return host.ids, -1
    place = take_place(host.home)
    parts.callback(place.release)
    return host.ids, place.index


def _attach(host: Host, shape: Shape, place: int, init: InitProcess, parts: ExitStack) -> Wire | None:
    if shape.bridge is None:
        return None
    wire = Wire.attach(host.home, host.network_requests, place, shape.bridge, init.pid)
    parts.callback(wire.close)
    return wire


def _fork(host: Host, birthright: Birthright) -> InitProcess:
    if host.oci is None:
        return InitProcess.fork(host.stage, birthright)
    return InitProcess.fork(host.stage, birthright, host.oci.life, namespaces=0)


def _has_list(host: Host, shape: Shape) -> bool:
    """Whether the group has a list of devices; an OCI runtime makes one on version 1 in any case: ours comes first."""
    return bool(shape.devices) or (host.oci is not None and "devices" not in host.hierarchy.lacking)


def _open_disk(
    home: str, size_bytes: int | None, token: str, directories: tuple[Directory, ...], ids: IdMap
) -> Disk | DirectoryDisk:
    if size_bytes is None:
        return open_directory_disk(home, token, directories, ids)
    return open_disk(home, size_bytes, token, directories)


def _difference(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None else max(0.0, now - before)
