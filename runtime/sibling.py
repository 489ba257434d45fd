"""A container that lives beside a job's own: a service. Made by the same keeper, in the same way, with less of its own.

It shares with the job
- the network namespace: what it listens on at 127.0.0.1 is the job's localhost, whatever the job has of a network;
- the user namespace, which owns that network: so it has the same range of ids, and the two are one trust domain;
- the disk, whose quota holds for all together: its upper directories are in `services/NAME`, by a mount of its own;
- the control group, in which it has one within, with limits of its own.
Its processes, mounts, IPC, host name and root are its own, and so is its view of control groups.

All of them are prepared while the job's init still waits. They end with their inits, as the job does; a SIGKILL of the
keeper leaves nothing but the directories of the group within, for the sweeper.
"""

import os
from contextlib import ExitStack

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups.hierarchy import Cgroup
from dayfly.runtime.cgroups.readings import Oom, Usage
from dayfly.runtime.container import Container, Host
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.init_process import InitProcess, Refusal
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.rootfs import layout
from dayfly.runtime.shape import ContainerPlan, Shape

_ABOVE = "services"


class Sibling:
    """One of them. `discard` releases what it is made of, before the container beside it is discarded; safe twice."""

    def __init__(self, cgroup: Cgroup, init: InitProcess, parts: ExitStack) -> None:
        self.init = init
        self._cgroup = cgroup
        self._parts = parts

    @classmethod
    def prepare(cls, host: Host, beside: Container, shape: Shape, name: str) -> "Sibling":
        """Make it up to its waiting init. `beside` was divided, and has not been started.

        Raises `HostError`.
        """
        with ExitStack() as parts:
            shared = Namespaces.shared_of(beside.init.pid, beside.shape.network)
            parts.callback(shared.close)
            own = host.birthright(shape, beside.ids, shared.fds, f"disk/{directory_of(name)}")
            init = InitProcess.fork(host.stage, own)
            parts.callback(init.close)
            cgroup = beside.group_within(name)
            parts.callback(cgroup.discard)
            cgroup.apply(shape.quotas)
            mount_fd = beside.disk.mount_again()
            parts.callback(os.close, mount_fd)
            _lay_out(mount_fd, shape, name, beside.ids)
            parts.callback(init.close)  # from here on it holds both, and must go before them
            init.await_ready(mount_fd, cgroup.joins)
            return cls(cgroup, init, parts.pop_all())

    def start(self, plan: ContainerPlan, stop_signal: int) -> Refusal | None:
        """Run the plan's command. None when it has been executed. Raises `HostError` when the container failed."""
        return self.init.start(plan, stop_signal, {})

    def usage(self) -> Usage:
        """What it used, its preparation included."""
        return self._cgroup.usage()

    def oom(self) -> Oom:
        """What of it the kernel killed for a memory limit, its own or the job's."""
        return self._cgroup.oom()

    def discard(self) -> None:
        """Kill, unmount, free."""
        self._parts.close()


def directory_of(name: str) -> str:
    """Where on the job's disk a service has its upper directories."""
    return f"{_ABOVE}/{name}"


def _lay_out(disk_fd: int, shape: Shape, name: str, ids: IdMap) -> None:
    """As root on the disk, which its owners are the job's root's: the mount is not mapped yet."""
    try:
        for path in (_ABOVE, directory_of(name)):
            if not _exists(path, disk_fd):
                os.mkdir(path, 0o755, dir_fd=disk_fd)
        for directory in layout(shape.host_trees):
            path = f"{directory_of(name)}/{directory.path}"
            os.mkdir(path, dir_fd=disk_fd)
            owner = ids.on_disk(directory.owner)
            os.chown(path, owner, owner, dir_fd=disk_fd)
            os.chmod(path, directory.mode, dir_fd=disk_fd)
    except OSError as error:
        raise HostError("make the directories of a service on the job's disk", None, error.errno) from error


def _exists(path: str, directory_fd: int) -> bool:
    try:
        os.stat(path, dir_fd=directory_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
