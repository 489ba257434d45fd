"""What a job is given beside its image: the directory below /workspace, and the operator's mounts.

To be applied in the stage, before the pivot. Targets are resolved inside the container's root (openat2(2),
RESOLVE_IN_ROOT), where nothing runs yet. init makes files as the job's root by then (capabilities.make_files_as).
"""

import os
import stat
from dataclasses import dataclass

from dayfly.runtime import syscalls
from dayfly.runtime.hosttree import NOT_MAPPED, attach_as_it_is, attach_as_nobodys, attach_owned, open_source
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.operations import Operation
from dayfly.runtime.shape import ContainerPlan
from dayfly.runtime.shape import Mount as MountRequest
from dayfly.runtime.users import Identity
from dayfly.runtime.workspace import GiveWorkspace, OwnWorkspace

_NAME_LOOKUP = ("/etc/resolv.conf", "/etc/hosts")  # an image's own say nothing of the host's network


def input_operations(
    ids: IdMap, namespaces: Namespaces, plan: ContainerPlan, user: Identity, notes: list[str]
) -> list[Operation]:
    """The operations for one job that runs as `user`. What its result should say is added to `notes`."""
    operations: list[Operation] = []
    if plan.workspace is not None:
        operations.append(GiveWorkspace(plan.workspace, ids, user, namespaces, notes))
    else:
        operations.append(OwnWorkspace(ids, user))
    names = _NAME_LOOKUP if plan.shape.network == "host" else ()
    lookups = (MountRequest(source=os.path.realpath(path), target=path) for path in names if os.path.exists(path))
    unsaid: list[str] = []  # that these cannot be changed is nobody's loss
    operations += [GiveMount(request, ids, user, namespaces, unsaid) for request in lookups]
    operations += [GiveMount(request, ids, user, namespaces, notes) for request in plan.mounts]
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
        source = open_source(self.request.source)
        is_directory = stat.S_ISDIR(os.fstat(source).st_mode)
        target = _open_target(self.request.target, is_directory)
        try:
            attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
            attributes |= 0 if self.request.writable else syscalls.MOUNT_ATTR_RDONLY
            if not attach_owned(source, target, attributes, self.ids, self.user, self.namespaces):
                attach = attach_as_nobodys if self.ids.is_mounted else attach_as_it_is
                attach(source, target, attributes)
                self.notes.append(f"{self.request.target} belongs to nobody in the job: {NOT_MAPPED}")
        finally:
            os.close(source)
            os.close(target)


def _open_target(target: str, is_directory: bool) -> int:
    """An O_PATH descriptor of `target` inside `root`, made when it is not there."""
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    try:
        parts = [part for part in target.split("/") if part]
        for count in range(1, len(parts) + 1):
            _ensure(root, "/".join(parts[:count]), is_directory or count < len(parts), resolve)
        return syscalls.openat2(root, target, os.O_PATH, resolve=resolve)
    finally:
        os.close(root)


def _ensure(root: int, path: str, is_directory: bool, resolve: int) -> None:
    try:
        os.close(syscalls.openat2(root, path, os.O_PATH, resolve=resolve))
    except FileNotFoundError:
        parent, _, name = path.rpartition("/")
        above = syscalls.openat2(root, parent or ".", os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        try:
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=above))
        finally:
            os.close(above)
