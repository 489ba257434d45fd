"""The process that makes a container for an OCI runtime, has the runtime start the job in it, and reports its end.

Theory of operation
-------------------
It stands where `init.py` stands for our own container, with the same messages to the keeper and the same operations in
the same order; but outside of the container, as host root in the host's PID namespace, since the runtime is its child:

    keeper ─ monitor ─┬─ reaper       PID 1, a user of the job's user namespace (reaper.py)
                      ├─ the runtime  runs only while it starts the job
                      └─ the command  the runtime's child, and ours when the runtime has left (PR_SET_CHILD_SUBREAPER)

The mounts are made in a mount namespace of the monitor's, as natively. What needs the job's PID namespace (/proc,
mapped owners) or its control group (the cgroup namespace) is done by children, whose mounts are the monitor's too.

At "go" a child gives the inputs and then rehearses the command: it becomes the job's user in the job's root and
executes it under ptrace(2), which stops it before its first instruction. So a command that cannot be executed is told
as natively; an OCI runtime has no word for it once it has started the job. Then the root is moved to /run/dayfly on
a /run that only this mount namespace has, where the job's root user may go, and the runtime is run. Its bundle and
state lie there too; they go as soon as the command runs, which is in a mount namespace of its own by then. The runtime
sees no control groups but those that are the job's, so it makes none elsewhere.

The runtime makes a mount namespace of its own, which the job's user namespace owns. All mounts in it come from ours,
so they are locked: a mask cannot be taken off, what is read-only stays so (mount_namespaces(7)).

The end: whoever kills the job kills PID 1, and the monitor sees everything go. SIGKILL of the keeper kills the monitor
(PR_SET_PDEATHSIG), and that the reaper.
"""

import errno
import json
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from dayfly.jobs.errors import HostError
from dayfly.runtime import capabilities, init, spawn, syscalls
from dayfly.runtime.cgroups import mounts, tasks, v1
from dayfly.runtime.channel import Channel, Message
from dayfly.runtime.init import Birthright
from dayfly.runtime.inputs import input_operations
from dayfly.runtime.namespaces import Namespaces, loopback_up, quieten
from dayfly.runtime.oci import runtime_call
from dayfly.runtime.oci.config import Standing, document
from dayfly.runtime.oci.reaper import Reaper
from dayfly.runtime.operations import perform
from dayfly.runtime.rootfs import handover_operations, kernel_operations, proc_operations, tree_operations
from dayfly.runtime.shape import ContainerPlan
from dayfly.runtime.spawn import NotExecutableError
from dayfly.runtime.title import set_title
from dayfly.runtime.users import Identity

_OUR_TREES = frozenset((*v1.CONTROLLERS, "devices"))


class ToldError(Exception):
    """A child of ours has told the keeper already what went wrong."""


def run(program: str, stage: str, own: Birthright, channel: Channel, output: tuple[int, int]) -> None:
    """The whole life of a monitor that has the runtime `program` start the job. Never returns."""
    reaper = None
    try:
        notes: list[str] = []
        namespaces, reaper = _prepare(stage, own, channel, output, notes)
        parts = channel.receive_fds()
        if parts is None:
            return  # the keeper could not make them
        disk_fd, *joins = parts
        _in_child(channel, lambda: _build_root(own, namespaces, disk_fd, joins))
        tasks.join(joins, reaper.pid)
        for fd in parts:
            os.close(fd)
        channel.send(Message.READY, notes=notes, pid=reaper.pid)
        start = channel.receive()
        if start is not None:
            plan = ContainerPlan.from_json(start[1]["plan"])
            job = _Job(own, namespaces, reaper, channel, output, plan, init.secret_values(start[1]))
            job.live(program, start[1]["seccomp"], start[1]["stop_signal"])
    except ToldError:
        pass
    except (NotExecutableError, HostError, OSError) as error:
        init.tell(channel, error)
    finally:
        if reaper is not None:
            reaper.end()  # else it ends with us
        os._exit(0)


def _prepare(
    stage: str, own: Birthright, channel: Channel, output: tuple[int, int], notes: list[str]
) -> tuple[Namespaces, Reaper]:
    """All that depends neither on the job nor on what the keeper makes meanwhile."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1)
    set_title("dayfly: monitor")
    init.close_all_but(channel.fd, *output)
    syscalls.unshare(syscalls.CLONE_NEWNS)
    os.chdir(stage)
    os.umask(0)
    namespaces = Namespaces.make(own.ids, own.shape.network, proc="/proc")
    namespaces.enter("net", "ipc", "uts")
    if own.shape.network != "host":
        loopback_up()
    if own.shape.network == "bridge":
        quieten(own.ids)
    reaper = Reaper.fork(namespaces, own.ids, own.seccomp_filter)
    _in_child(channel, lambda: perform(proc_operations(own.shape)), reaper.fork_within)
    capabilities.make_files_as(own.ids.first)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)  # which a change of ids clears (prctl(2))
    perform(kernel_operations(own.shape, own.ids, namespaces.user, notes))
    init.limit_resources()
    return namespaces, reaper


def _build_root(own: Birthright, namespaces: Namespaces, disk_fd: int, joins: list[int]) -> None:
    """In a child: only members of the job's group can mount what shows that group as the root."""
    tasks.join(joins)
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    perform(tree_operations(own.shape, disk_fd, own.ids, namespaces.user, own.has_cgroup2))


class _Job:
    """One job, from "go" to its end."""

    def __init__(
        self,
        own: Birthright,
        namespaces: Namespaces,
        reaper: Reaper,
        channel: Channel,
        output: tuple[int, int],
        plan: ContainerPlan,
        secrets: Mapping[str, bytes],
    ) -> None:
        self._own = own
        self._namespaces = namespaces
        self._reaper = reaper
        self._channel = channel
        self._output = output
        self._plan = plan
        self._secrets = secrets
        self._privileges = plan.privileges or init.EVERYBODYS

    def live(self, program: str, section: str | None, stop_signal: int) -> None:
        """Give the inputs, have the command started, report its end."""
        stdin = _open_stdin(self._plan.process.stdin)
        identity = init.look_up(self._plan.process.user)
        env = spawn.environment(self._plan, identity, self._secrets)
        _check_text(self._plan.process.argv, env)
        socket.sethostname(self._plan.process.hostname)
        for pipe in self._output:  # so that `>> /dev/stdout` works for the job's user
            os.fchown(pipe, self._own.ids.first + identity.uid, self._own.ids.first + identity.gid)
        notes = self._give_and_rehearse(identity, env)
        perform(handover_operations())
        _leave_only_our_groups()
        group = mounts.group_of(mounts.read_text(f"/proc/{self._reaper.pid}/cgroup"), v1.CONTROLLERS)
        standing = Standing(self._reaper.pid, group, self._own.ids.first)
        seccomp = None if section is None else json.loads(mounts.read_text(section))
        config = document(self._plan, self._privileges, identity, env, standing, seccomp)
        merged = self._output[0] if self._plan.merge_streams else self._output[1]
        command = runtime_call.start(program, config, (stdin, self._output[0], merged))
        syscalls.umount2("/run", syscalls.MNT_DETACH)  # with the bundle, which has the job's secrets
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        for fd in (stdin, *self._output):
            os.close(fd)
        signal.signal(signal.SIGTERM, lambda received, frame: _pass_on(command, stop_signal))
        self._channel.send(Message.SPAWNED, notes=notes)
        self._report(command, spent)

    def _give_and_rehearse(self, identity: Identity, env: Mapping[str, str]) -> list[str]:
        """In one child, which the command then replaces: returns what the job's result should say."""
        reader, writer = os.pipe()
        child = self._reaper.fork_within()
        if child == 0:
            _tell_and_end(self._channel, lambda: self._rehearse(identity, env, writer))
        os.close(writer)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            raise ToldError
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with open(reader) as pipe:
            notes: list[str] = json.load(pipe)
        return notes

    def _rehearse(self, identity: Identity, env: Mapping[str, str], writer: int) -> None:
        process, notes = self._plan.process, list[str]()
        namespaces, secrets = self._namespaces, self._secrets
        inputs = input_operations(self._own.ids, namespaces, self._plan, identity, notes, secrets)
        perform(inputs, are_jobs_own=True)
        with open(writer, "w") as pipe:
            json.dump(notes, pipe)
        os.chroot("root")
        os.chdir("/")
        init.become_container_root(self._namespaces, self._own.ids)
        init.enter(process.cwd)
        program = None if self._privileges.gains else self._own.seccomp_filter
        init.become(identity, self._own.ids, self._privileges, program)
        path = spawn.search(process.argv[0], env)
        syscalls.ptrace_traceme()
        try:
            os.execve(path, process.argv, env)
        except OSError as error:
            raise spawn.cannot(error.errno or 0, process.argv[0]) from error

    def _report(self, command: int, before: resource.struct_rusage) -> None:
        """Reap until the command ends; then say how, and whether it was the last process."""
        while True:
            pid, status = os.wait()
            if pid == command:
                break
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._channel.send(
            Message.EXITED,
            code=os.waitstatus_to_exitcode(status),
            alone=self._reaper.is_alone(),
            read=spent.ru_inblock - before.ru_inblock,
            written=spent.ru_oublock - before.ru_oublock,
            user=spent.ru_utime - before.ru_utime,
            system=spent.ru_stime - before.ru_stime,
        )


def _in_child(channel: Channel, work: Callable[[], None], fork: Callable[[], int] = os.fork) -> None:
    """Have a child do `work`. Raises `ToldError` when it failed."""
    pid = fork()
    if pid == 0:
        _tell_and_end(channel, work)
    if os.waitpid(pid, 0)[1]:
        raise ToldError


def _tell_and_end(channel: Channel, work: Callable[[], None]) -> None:
    """The life of a child: it tells the keeper itself of what goes wrong. Never returns."""
    status = 1
    try:
        work()
        status = 0
    except (NotExecutableError, HostError, OSError) as error:
        init.tell(channel, error)
    finally:
        os._exit(status)


def _open_stdin(path: str | None) -> int:
    """The job's own null, or a pipe that a child fills from the file: never what is the host's.

    crun gives the files that it hands over to the job's root, as host root.
    """
    if path is None:
        return os.open("root/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    reader, writer = os.pipe()
    if os.fork() == 0:
        _pour(file, writer)
    for fd in (file, writer):
        os.close(fd)
    return reader


def _pour(file: int, writer: int) -> None:
    """The life of that child, which ends with the file, the job or the monitor. Never returns."""
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
        init.close_all_but(file, writer)  # with the reading end it would never hear that nobody reads
        while chunk := os.read(file, 1 << 16):
            os.write(writer, chunk)
    except BrokenPipeError:
        pass  # nobody reads it any more
    finally:
        os._exit(0)


def _leave_only_our_groups() -> None:
    """Unmount the trees of version 1 in which the job has no group: a runtime would make one in each, and leave it."""
    mounted = mounts.cgroup_mounts(mounts.read_text("/proc/self/mountinfo"))
    if all(each.version == 2 for each in mounted):
        return
    for each in mounted:
        if each.controllers.isdisjoint(_OUR_TREES):
            syscalls.umount2(each.path, syscalls.MNT_DETACH)


def _check_text(argv: Iterable[str], env: Mapping[str, str]) -> None:
    """config.json is JSON, and so UTF-8: what is not would arrive as something else."""
    for what, value in (
        *(("an argument", word) for word in argv),
        *((f"the variable {name}", env[name]) for name in env),
    ):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            reason = f"{what} is not UTF-8, and this worker's OCI runtime takes nothing else"
            raise NotExecutableError(errno.EILSEQ, reason) from error


def _pass_on(command: int, stop_signal: int) -> None:
    """Stop the command's whole process group, as Ctrl-C on a terminal would."""
    with suppress(ProcessLookupError):  # it ended in this instant
        os.killpg(command, stop_signal)
