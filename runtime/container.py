"""A container, from the keeper's side: prepare it ahead, start a job in it, hear of its end, discard it.

Theory of operation
-------------------
Three processes make a container. The *keeper* (host root, outside of the container) owns it. A short-lived child makes
the namespaces that must belong to the job's user namespace (`namespaces.py`). *init* is forked into a new PID namespace
and becomes PID 1 (`init.py`).

Prepared ahead, from a `Shape`, before any job is known:
 1. a range of ids (`idrange.py`), a control group with its limits, a disk of the quota's size;
 2. user, net, IPC and UTS namespaces; loopback up;
 3. init: dies with the keeper; joins the control group, then leaves for a cgroup namespace whose root that group is,
    and for a mount namespace that *host* root owns, so that nothing the job may ever become can change a mount;
 4. the root: layers with mapped owners, overlay, /dev, /proc (needs the PID namespace), /sys (needs the net
    namespace), masks. All in the stage, beside the host's tree, since a job's inputs are still to come.
Done at "go", which is the only part that a job waits for:
 5. inputs: the directory, the mounts (need the host's tree);
 6. pivot, and let go of the host's tree; only then
 7. enter the user namespace: what host root had to do is done. Cut the bounding set while CAP_SETPCAP is there, set
    ids, lower the capabilities, become undumpable *before* the job can look at /proc/1 (CVE-2019-5736,
    CVE-2016-9962), no_new_privs, and the seccomp filter last, as it forbids most of the above;
 8. spawn the command in a session of its own. init holds no descriptor of the host by then: everything the keeper had
    open was closed in step 3 (CVE-2024-21626).
A container is never used twice.

The end: init reaps the command, says so down the channel and leaves; the kernel kills whatever else is in the PID
namespace. Tearing the namespaces down takes the kernel 1.6 ms, so the end is told first; when the command was the last
process (`alone`) nobody needs to wait for the rest.

What a SIGKILL of the keeper leaves: init and all its processes die (PR_SET_PDEATHSIG, PID namespace), mounts, disk and
loop device go with the descriptors. The control group's directories stay, by the token's name, for the sweeper.
"""

import errno
import os
import signal
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from dayfly.jobs.errors import HostError
from dayfly.runtime import init, syscalls
from dayfly.runtime.cgroups.hierarchy import Cgroup, Hierarchy
from dayfly.runtime.channel import Channel, Message
from dayfly.runtime.disk import Disk, open_disk
from dayfly.runtime.idrange import IdRange
from dayfly.runtime.namespaces import Namespaces
from dayfly.runtime.rootfs import layout
from dayfly.runtime.shape import ContainerPlan, Shape

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Host:
    """What all containers of a host share, made once by the launcher."""

    home: str
    stage: str
    hierarchy: Hierarchy
    seccomp_filter: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """The command was not executed, and that is the job's fault: errno and a sentence."""

    errno: int
    message: str

    @property
    def exit_code(self) -> int:
        """127 not found, 126 not executable, as a shell has it."""
        return 127 if self.errno in (errno.ENOENT, errno.ENOTDIR) else 126


@dataclass(frozen=True, slots=True)
class End:
    """How the command ended; `is_alone` when no other process of the job was left. None of both: init was killed."""

    exit_code: int | None
    signal: int | None
    is_alone: bool


class Container:
    """One container. `discard` is safe from any state and more than once."""

    def __init__(self, host: Host, shape: Shape) -> None:
        self.host = host
        self.shape = shape
        self.ids: IdRange | None = None
        self.namespaces: Namespaces | None = None
        self.cgroup: Cgroup | None = None
        self.disk: Disk | None = None
        self.init_pid: int | None = None
        self.channel: Channel | None = None
        self.stdout = self.stderr = -1

    @classmethod
    def prepare(cls, host: Host, shape: Shape, token: str) -> "Container":
        """Make a container of `shape` whose control group is `token`, up to its waiting init. Raises `HostError`."""
        container = cls(host, shape)
        try:
            container._prepare(token)
        except BaseException:
            container.discard()
            raise
        return container

    def start(self, plan: ContainerPlan, stop_signal: int) -> Refusal | None:
        """Run the plan's command. None when it has been executed. Raises `HostError` when the container failed."""
        channel = _present(self.channel)
        channel.send(Message.START, plan=plan.to_json(), stop_signal=stop_signal)
        message, fields = self._receive()
        if message is Message.REFUSED:
            return Refusal(fields["errno"], fields["message"])
        return None

    def end(self) -> End:
        """The command's end; blocks until the channel is readable."""
        message = _present(self.channel).receive()
        if message is None or message[0] is not Message.EXITED:
            return End(None, None, is_alone=False)
        code = message[1]["code"]
        return End(code if code >= 0 else None, -code if code < 0 else None, message[1]["alone"])

    def stop(self) -> None:
        """Ask the command to end: init passes the stop signal on."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the job: the death of PID 1 is the death of the namespace."""
        self._signal(signal.SIGKILL)

    def reap(self) -> None:
        """Wait until init is gone, and so every process of the job."""
        if self.init_pid is not None:
            os.waitpid(self.init_pid, 0)
            self.init_pid = None

    def discard(self) -> None:
        """Kill, unmount, free. What is written and not collected is lost, which is the point of it."""
        self.kill()
        self.reap()
        if self.channel is not None:
            self.channel.close()
            self.channel = None
        for fd in (self.stdout, self.stderr):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = -1
        if self.namespaces is not None:
            self.namespaces.close()
        if self.disk is not None:
            self.disk.close()
        if self.cgroup is not None:
            self.cgroup.discard()
        if self.ids is not None:
            self.ids.release()
            self.ids = None

    def _prepare(self, token: str) -> None:
        self.ids = IdRange.acquire()
        self.cgroup = self.host.hierarchy.create(token)
        self.cgroup.apply(self.shape.quotas)
        self.disk = open_disk(self.host.home, self.shape.disk_bytes or 0, token, layout(self.shape.host_trees))
        self.namespaces = Namespaces.make(self.ids.first, self.shape.network)
        attributes = syscalls.MOUNT_ATTR_IDMAP
        syscalls.mount_setattr(
            self.disk.mount_fd, "", syscalls.AT_EMPTY_PATH, attributes, userns_fd=self.namespaces.user
        )
        self._fork_init()
        self._receive()

    def _fork_init(self) -> None:
        """Fork PID 1. Only children are born into the new PID namespace, so the keeper itself stays where it is."""
        own, inits = Channel.pair()
        self.stdout, stdout = os.pipe()
        self.stderr, stderr = os.pipe()
        host_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.unshare(syscalls.CLONE_NEWPID)
            birthright = self._birthright(stdout, stderr)
            self.init_pid = os.fork()
            if self.init_pid == 0:
                init.run(birthright, inits)
            self.channel = own
            syscalls.setns(host_pids, syscalls.CLONE_NEWPID)
        finally:
            os.close(host_pids)
            inits.close()
            os.close(stdout)
            os.close(stderr)

    def _birthright(self, stdout: int, stderr: int) -> init.Birthright:
        return init.Birthright(
            stage=self.host.stage,
            shape=self.shape,
            first_id=_present(self.ids).first,
            disk_fd=_present(self.disk).mount_fd,
            namespaces=_present(self.namespaces),
            cgroup=_present(self.cgroup),
            has_cgroup2=self.host.hierarchy.version == 2,
            seccomp_filter=self.host.seccomp_filter,
            stdout=stdout,
            stderr=stderr,
        )

    def _receive(self) -> tuple[Message, dict[str, Any]]:
        """The next message; a fault of init is raised here."""
        received = _present(self.channel).receive()
        if received is None:
            raise HostError("set up the container", reason="its init died before the job began")
        message, fields = received
        if message is Message.FAULT:
            raise HostError(fields["step"], fields["path"], fields["errno"], fields["remedy"], reason=fields["reason"])
        return message, fields

    def _signal(self, number: signal.Signals) -> None:
        if self.init_pid is not None:
            with suppress(ProcessLookupError):  # it has ended; it is not reaped yet, so the pid is still its own
                os.kill(self.init_pid, number)


def _present(value: _T | None) -> _T:
    if value is None:
        raise HostError("use the container", reason="it was discarded")
    return value
