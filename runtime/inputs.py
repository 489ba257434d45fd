"""What a job is given beside its image: the directory below /workspace, devices, the operator's mounts, and secrets.

To be applied in the stage, before the pivot, while nothing runs in the container's root. init makes files as
the job's root by then (capabilities.make_files_as).
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.hosttree import NOT_MAPPED, attach_as_it_is, attach_as_nobodys, attach_owned, open_meant
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.names import HOSTS, GiveHosts
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.operations import Give, Operation
from dayfly.runtime.secret_files import GiveSecretFiles
from dayfly.runtime.shape import ContainerPlan
from dayfly.runtime.shape import Mount as MountRequest
from dayfly.runtime.targets import open_target
from dayfly.runtime.tmpfs import SOURCE as TMPFS
from dayfly.runtime.tmpfs import GiveTmpfs
from dayfly.runtime.users import Identity
from dayfly.runtime.view import groups_in
from dayfly.runtime.workspace import GiveWorkspace, OwnWorkspace

NAME_LOOKUP = ("/etc/resolv.conf", "/etc/hosts")
"""What a job with a network is given to look up names: an image's own say nothing of it."""

_OF_BRIDGE = "../run"  # from the stage: where the network's process writes them


def input_operations(
    ids: IdMap,
    namespaces: Namespaces,
    plan: ContainerPlan,
    user: Identity,
    notes: list[str],
    secret_values: Mapping[str, bytes],
) -> list[Operation]:
    """The operations for one job that runs as `user`. What its result should say is added to `notes`."""
    operations: list[Operation] = []
    if plan.workspace is not None:
        operations.append(GiveWorkspace(plan.workspace, ids, user, namespaces, notes))
    else:
        operations.append(OwnWorkspace(ids, user))
    names: tuple[str, ...] = NAME_LOOKUP if plan.shape.network != "none" else ()
    if plan.neighbours:
        operations.append(GiveHosts(plan.neighbours, is_hosts_own=plan.shape.network == "host"))
        names = tuple(name for name in names if name != HOSTS)
    if plan.shape.network == "bridge":
        operations += [GiveNames(f"{_OF_BRIDGE}/{os.path.basename(name)}", name) for name in names]
        names = ()
    lookups = (MountRequest(source=os.path.realpath(path), target=path) for path in names if os.path.exists(path))
    owner = ids.first + user.uid, ids.first + user.gid
    operations += [Give(f"root{device.target}", *owner) for device in plan.shape.devices]
    unsaid: list[str] = []  # that these cannot be changed is nobody's loss
    operations += [GiveMount(request, ids, user, namespaces, unsaid) for request in lookups]
    for request in plan.mounts:
        if request.source == TMPFS:
            operations.append(GiveTmpfs(request.target, request.size_bytes, ids))
        else:
            operations.append(GiveMount(request, ids, user, namespaces, notes))
    if files := tuple(secret for secret in plan.secrets if secret.env is None):
        operations.append(GiveSecretFiles(files, secret_values, ids, user))
    return operations


@dataclass(frozen=True, slots=True)
class GiveMount:
    """Show a host path that the operator allows at its target in the container.

    Where the owners cannot be mapped the job has what everybody has, and a note says so.
    """

    request: MountRequest
    ids: IdMap
    user: Identity
    namespaces: Namespaces
    notes: list[str]

    def describe(self) -> str:
        return f"mount {self.request.source} at {self.request.target}"

    def apply(self) -> None:
        source = self._open()
        is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = open_target(self.request.target, is_directory)
        try:
            attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
            attributes |= 0 if self.request.writable else syscalls.MOUNT_ATTR_RDONLY
            groups = groups_in(os.fstat(source), self.request.own_group, self.user.gid)
            if not attach_owned(source, target, attributes, self.ids, self.user, self.namespaces, groups):
                attach = attach_as_nobodys if self.ids.is_mounted else attach_as_it_is
                attach(source, target, attributes)
                self.notes.append(f"{self.request.target} belongs to nobody in the job: {NOT_MAPPED}")
        finally:
            os.close(source)
            os.close(target)

    def _open(self) -> int:
        """What the operator lets the job have, and not what somebody has put there since."""
        request = self.request
        fd = open_meant(request.source, request.device, request.inode, "mount")
        if request.owner is None or request.owner == os.fstat(fd).st_uid:
            return fd
        os.close(fd)
        reason = "it was given to another user since the job was let have it"
        raise HostError("mount", request.source, reason=reason, remedy="submit the job again", is_jobs_own=True)


@dataclass(frozen=True, slots=True)
class GiveNames:
    """Show a file of ours, which everybody may read and nobody write, at its target in the container."""

    source: str
    target: str

    def describe(self) -> str:
        return f"mount the network's own {self.target}"

    def apply(self) -> None:
        target = open_target(self.target, is_directory=False)
        attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
        try:
            attach_as_nobodys(self.source, target, attributes | syscalls.MOUNT_ATTR_RDONLY)
        finally:
            os.close(target)
