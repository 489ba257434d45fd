"""PID 1 of a container: builds the root ahead, waits, becomes the job's user, runs the command, reports its end.

It is a straight function that never returns (`run`), entered by a fork of the keeper; see `container.py` for the order
of the steps and its reasons. It imports nothing after the fork: from the pivot on, a file with a module's name would be
the image's (CVE-2019-14271).
"""

import errno
import os
import resource
import signal
import socket
from binascii import a2b_base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from dayfly.jobs.errors import HostError
from dayfly.runtime import capabilities, seccomp, syscalls, users
from dayfly.runtime.cgroups import tasks
from dayfly.runtime.channel import Channel, Message
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.inputs import input_operations
from dayfly.runtime.namespaces import Namespaces, loopback_up, quieten
from dayfly.runtime.operations import PivotRoot, perform
from dayfly.runtime.readiness import await_serving
from dayfly.runtime.rootfs import kernel_operations, proc_operations, tree_operations
from dayfly.runtime.shape import ContainerPlan, Privileges, Shape
from dayfly.runtime.spawn import NotExecutableError, environment, execute, spawn
from dayfly.runtime.title import set_title

PROCESSES_AT_MOST = 4096
"""Of all jobs together, of a worker that has no control group to count them."""


@dataclass(frozen=True, slots=True)
class Birthright:
    """What init inherits from the keeper.

    `shared`: descriptors of the namespaces of the container that this one lives beside, else empty; `directory`: where
    on the disk its own upper directories are, below the stage.
    """

    shape: Shape
    ids: IdMap
    has_cgroup2: bool
    has_pids_limit: bool
    seccomp_filter: bytes
    shared: Mapping[str, int] = field(default_factory=dict)
    directory: str = "disk"


def run(stage: str, own: Birthright, channel: Channel, output: tuple[int, int]) -> None:
    """The whole life of PID 1. Tells the keeper of any fault and leaves by `os._exit`."""
    try:
        notes: list[str] = []
        namespaces = _prepare(stage, own, channel, output, notes)
        parts = channel.receive_fds()
        if parts is None:
            return  # the keeper could not make them
        _build_root(own, namespaces, parts)
        channel.send(Message.READY, notes=notes)
        start = channel.receive()
        if start is not None:
            plan = ContainerPlan.from_json(start[1]["plan"])
            secrets = secret_values(start[1])
            _live(own, namespaces, channel, output, plan, start[1]["stop_signal"], secrets)
    except (NotExecutableError, HostError, OSError) as error:
        tell(channel, error)
    finally:
        os._exit(0)


def tell(channel: Channel, error: NotExecutableError | HostError | OSError) -> None:
    """Tell the keeper why there will be no command."""
    if isinstance(error, NotExecutableError):
        channel.send(Message.REFUSED, errno=error.number, reason=error.message)
        return
    if isinstance(error, OSError):
        error = HostError("set up the container", error.filename, error.errno)
    channel.send(Message.FAULT, **error.fields())


def secret_values(start: Mapping[str, Any]) -> dict[str, bytes]:
    """The values of the job's secrets by name, out of the message that starts it."""
    return {name: a2b_base64(value) for name, value in start["secrets"].items()}


def _prepare(stage: str, own: Birthright, channel: Channel, output: tuple[int, int], notes: list[str]) -> Namespaces:
    """All that depends neither on the job nor on what the keeper makes meanwhile."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    set_title("dayfly: init")  # the job sees it, and it would be the keeper's
    close_all_but(channel.fd, *output, *own.shared.values())
    syscalls.unshare(syscalls.CLONE_NEWNS)
    os.chdir(stage)
    os.umask(0)
    perform(proc_operations(own.shape))
    if not own.has_pids_limit:
        _limit_processes()
    if own.shared:
        namespaces = Namespaces.beside(own.shared, proc="proc")
    else:
        namespaces = Namespaces.make(own.ids, own.shape.network, proc="proc")
    namespaces.enter("net", "ipc", "uts")
    if own.shape.network != "host":
        loopback_up()
    if own.shape.network == "bridge":
        quieten(own.ids)
    capabilities.make_files_as(own.ids.first)
    perform(kernel_operations(own.shape, own.ids, namespaces.user, notes))
    limit_resources()
    return namespaces


def _build_root(own: Birthright, namespaces: Namespaces, parts: list[int]) -> None:
    """The keeper has made the disk and the control group: put everything together."""
    disk_fd, *joins = parts
    tasks.join(joins)
    syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    perform(tree_operations(own.shape, disk_fd, own.ids, namespaces.user, own.has_cgroup2, own.directory))
    for fd in parts:
        os.close(fd)


def _live(
    own: Birthright,
    namespaces: Namespaces,
    channel: Channel,
    output: tuple[int, int],
    plan: ContainerPlan,
    stop_signal: int,
    secrets: Mapping[str, bytes],
) -> None:
    """Become the job's root and user, run the command, report its end."""
    stdin = os.open(plan.process.stdin, os.O_RDONLY | os.O_CLOEXEC) if plan.process.stdin else None
    identity = look_up(plan.process.user)
    privileges, program = plan.privileges or EVERYBODYS, _filter(own, plan.privileges)
    notes: list[str] = []
    perform(input_operations(own.ids, namespaces, plan, identity, notes, secrets), are_jobs_own=True)
    perform([PivotRoot("root")])
    socket.sethostname(plan.process.hostname)
    for pipe in output:  # so that `>> /dev/stdout` works for the job's user
        os.fchown(pipe, own.ids.first + identity.uid, own.ids.first + identity.gid)
    oom_score = os.open("/proc/self/oom_score_adj", os.O_RDWR | os.O_CLOEXEC)  # host root's, like its process
    become_container_root(namespaces, own.ids)
    enter(plan.process.cwd)
    become(identity, own.ids, privileges, program)
    with _victims_first(oom_score):
        command = spawn(plan, environment(plan, identity, secrets), stdin, *output)
    signal.signal(signal.SIGTERM, lambda received, frame: _pass_on(command, stop_signal))
    channel.send(Message.SPAWNED, notes=notes)
    _report(channel, command, _until_serving(plan, identity, channel, command))


def close_all_but(*kept: int) -> None:
    """Close what the keeper had open (CVE-2024-21626: one leaked directory is the host)."""
    first = 3
    for fd in sorted(kept):
        if fd > first:
            syscalls.close_range(first, fd - 1)
        first = fd + 1
    syscalls.close_range(first)


def _limit_processes() -> None:
    """Without a control group a fork bomb would be the host's end. A user namespace keeps the limit of its maker, and
    holds it against all that this one runs (user_namespaces(7)): so it is one for all jobs of the worker together."""
    _, most = resource.getrlimit(resource.RLIMIT_NPROC)
    ceiling = most if 0 <= most < PROCESSES_AT_MOST else PROCESSES_AT_MOST
    resource.setrlimit(resource.RLIMIT_NPROC, (ceiling, ceiling))


def limit_resources() -> None:
    """Docker's rlimits where this host allows them: no core dumps, many files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = most if 0 <= most < 1048576 else 1048576
    resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, ceiling))


def look_up(user: str) -> users.Identity:
    try:
        return users.look_up(user, "root")
    except users.UnknownUserError as error:
        raise NotExecutableError(errno.EACCES, f"user {user!r}: {error}") from error


EVERYBODYS = Privileges(capabilities=capabilities.DEFAULT_MASK)


def _filter(own: Birthright, privileges: Privileges | None) -> bytes | None:
    """The filter for these privileges; it lies on the host, out of reach after the pivot."""
    if privileges is None:
        return own.seccomp_filter
    return None if privileges.filter_path is None else seccomp.load(privileges.filter_path)


def become_container_root(namespaces: Namespaces, ids: IdMap) -> None:
    """Enter the job's user namespace: from here on the host's root is out of reach."""
    namespaces.enter("user")
    os.setresgid(0, 0, 0)
    if not ids.is_single:  # or nobody may (user_namespaces(7), "setgroups")
        os.setgroups([])
    os.setresuid(0, 0, 0)
    os.umask(0o022)


def enter(cwd: str) -> None:
    """Make and enter the working directory; it must lie in the root (CVE-2024-21626)."""
    try:
        os.makedirs(cwd, exist_ok=True)
        os.chdir(cwd)
    except OSError as error:
        raise NotExecutableError(errno.EACCES, f"cannot enter the working directory {cwd}: {error.strerror}") from error
    if not os.getcwd().startswith("/"):
        raise NotExecutableError(errno.EACCES, f"the working directory {cwd} is outside the container")


def become(identity: users.Identity, ids: IdMap, privileges: Privileges, program: bytes | None) -> None:
    """Give up everything the job may not have. The bounding set is cut while CAP_SETPCAP is still there, the parent's
    death is heard again after the ids have changed (prctl(2) clears it), the filter comes last."""
    syscalls.keyctl(syscalls.KEYCTL_JOIN_SESSION_KEYRING)
    capabilities.drop_bounding(privileges.capabilities)
    os.setresgid(identity.gid, identity.gid, identity.gid)
    if not ids.is_single:
        os.setgroups(identity.groups)
    if identity.uid and privileges.ambient:
        capabilities.become_with(identity.uid, privileges.ambient)
    else:
        os.setresuid(identity.uid, identity.uid, identity.uid)
        capabilities.lower(privileges.capabilities if identity.uid == 0 else 0)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    if not privileges.gains:
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    if program is not None:
        seccomp.install(program)


@contextmanager
def _victims_first(oom_score: int) -> Iterator[None]:
    """What is born here the kernel kills before its init, and before the host's own, when memory is short.

    The old value may be restored, as it is above the least that was set with CAP_SYS_RESOURCE (proc(5)).
    """
    own = os.read(oom_score, 16)
    os.write(oom_score, b"1000")
    yield
    os.write(oom_score, own)
    os.close(oom_score)


def _pass_on(command: int, stop_signal: int) -> None:
    """Stop the command's whole process group, as Ctrl-C on a terminal would."""
    with suppress(ProcessLookupError):  # it ended in this instant
        os.killpg(command, stop_signal)


def _until_serving(plan: ContainerPlan, identity: users.Identity, channel: Channel, command: int) -> int | None:
    """Of a service: have tries made until it serves. The command's status when it has ended before that, else None."""
    if plan.ready is None:
        return None
    env = environment(plan, identity, {})

    def check(argv: tuple[str, ...], stdin: int, output: int) -> int:
        return execute(argv, env, stdin, output, output)

    try:
        return await_serving(plan.ready, channel, command, check)
    except NotExecutableError as refusal:
        channel.send(Message.TRIED, why=refusal.message, is_final=True)
        return None


def _report(channel: Channel, command: int, status: int | None) -> None:
    """Reap until the command ends, unless it has with `status`; then say how, and whether it was the last process."""
    while status is None:
        pid, ended = os.wait()
        status = ended if pid == command else None
    code = os.waitstatus_to_exitcode(status)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    channel.send(
        Message.EXITED,
        code=code,
        alone=_is_alone(),
        read=spent.ru_inblock,
        written=spent.ru_oublock,
        user=spent.ru_utime,
        system=spent.ru_stime,
    )


def _is_alone() -> bool:
    """Whether no other process is left: every one descends from init, so no child means none at all."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return True
    return False
