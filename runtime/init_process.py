"""init as its keeper sees it: fork it, give it its parts, start a job in it, stop it, hear its end, reap it."""

import errno
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dayfly.jobs.errors import HostError
from dayfly.runtime import init, syscalls
from dayfly.runtime.channel import Channel, Message
from dayfly.runtime.shape import ContainerPlan
from dayfly.runtime.title import find_argv

Life = Callable[[str, init.Birthright, Channel, tuple[int, int]], None]
"""What a forked process does with the stage, its birthright, its side of the channel and the job's output pipes."""

_BLOCK_BYTES = 512  # of ru_inblock and ru_oublock


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
    """How the command ended; `is_alone` when no other process of the job was left. init killed counts as SIGKILL.

    io and cpu are those of the processes which init reaped (getrusage(2)): the only count where no cgroup has one.
    """

    exit_code: int | None
    signal: int | None
    is_alone: bool
    io_read_bytes: int | None = None
    io_written_bytes: int | None = None
    cpu_user_seconds: float | None = None
    cpu_system_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A service does not serve yet: what came of the last try; `is_final`: no other will be made."""

    why: str
    is_final: bool


@dataclass(frozen=True, slots=True)
class Serving:
    """A service serves."""


class InitProcess:
    """PID 1 of a container and the pipes to it; `close` is safe from any state and more than once."""

    def __init__(self, pid: int, channel: Channel, stdout: int, stderr: int) -> None:
        self.pid = pid
        self.stdout = stdout
        self.stderr = stderr
        self.notes: tuple[str, ...] = ()
        """What the job's result should say of its set-up."""
        self._first: int | None = None  # a pidfd of PID 1, where that is another process than ours (oci/monitor.py)
        self._channel = channel
        self._is_reaped = False
        self._is_open = True

    @classmethod
    def fork(
        cls, stage: str, birthright: init.Birthright, life: Life = init.run, namespaces: int = syscalls.CLONE_NEWPID
    ) -> "InitProcess":
        """Fork PID 1, which begins to build at once; or with another `life` what stands where it stands."""
        find_argv()
        own, inits = Channel.pair()
        (stdout_r, stdout_w), (stderr_r, stderr_w) = os.pipe(), os.pipe()
        fork = _fork if birthright.ids.is_mounted else _fork_rootless
        try:
            pid = fork(lambda: life(stage, birthright, inits, (stdout_w, stderr_w)), namespaces)
        finally:
            inits.close()
            os.close(stdout_w)
            os.close(stderr_w)
        return cls(pid, own, stdout_r, stderr_r)

    @property
    def end_fd(self) -> int:
        """Readable when `end` will not block."""
        return self._channel.fd

    def await_ready(self, disk_fd: int, joins: Sequence[int]) -> None:
        """Give it the job's disk and control group (`Cgroup.joins`), and wait until the root is built.

        Raises `HostError`.
        """
        with suppress(BrokenPipeError):  # it has failed already, and said why
            self._channel.send_fds(Message.PARTS, [disk_fd, *joins])
        _, fields = self._receive()
        self.notes = tuple(fields["notes"])
        if "pid" in fields:
            self._first = os.pidfd_open(fields["pid"])

    def start(
        self, plan: ContainerPlan, stop_signal: int, secrets: Mapping[str, str], **more: str | None
    ) -> Refusal | None:
        """Run the plan's command; None when it has been executed. Raises `HostError`.

        `secrets` has the values of the plan's secrets by name, in base64; `more` is for another `life`.
        """
        self._channel.send(Message.START, plan=plan, stop_signal=stop_signal, secrets=secrets, **more)
        message, fields = self._receive()
        if message is Message.REFUSED:
            return Refusal(fields["errno"], fields["reason"])
        self.notes += tuple(fields["notes"])
        return None

    def end(self) -> End:
        """The command's end; blocks until `end_fd` is readable."""
        return _end(self._channel.receive())

    def hear(self) -> Serving | Tried | End:
        """What init says of a service (a plan with `ready`); blocks until `end_fd` is readable."""
        received = self._channel.receive()
        if received is not None and received[0] is Message.SERVING:
            return Serving()
        if received is not None and received[0] is Message.TRIED:
            return Tried(**received[1])
        return _end(received)

    def stop(self) -> None:
        """Ask the command to end: init passes the stop signal on."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every process of the job: the death of PID 1 is the death of its namespace (pid_namespaces(7))."""
        if self._first is None:
            self._signal(signal.SIGKILL)
        else:
            with suppress(ProcessLookupError):  # dead already
                signal.pidfd_send_signal(self._first, signal.SIGKILL)

    def reap(self) -> None:
        """Wait until init is gone, and so every process of the job."""
        if not self._is_reaped:
            os.waitpid(self.pid, 0)
            self._is_reaped = True

    def close(self) -> None:
        """Kill, reap, close the pipes."""
        if self._is_open:
            self.kill()
            self._channel.close()
            self.reap()
            for fd in (self.stdout, self.stderr, *([] if self._first is None else [self._first])):
                os.close(fd)
            self._is_open = False

    def _receive(self) -> tuple[Message, dict[str, Any]]:
        """The next message; a fault of init is raised here."""
        received = self._channel.receive()
        if received is None:
            raise HostError("set up the container", reason="its init died before the job began")
        message, fields = received
        if message is Message.FAULT:
            raise HostError(**fields)
        return message, fields

    def _signal(self, number: signal.Signals) -> None:
        if not self._is_reaped:
            with suppress(ProcessLookupError):  # dead, but not reaped yet, so the pid is still its own
                os.kill(self.pid, number)


def _end(received: tuple[Message, dict[str, Any]] | None) -> End:
    if received is None:
        return End(None, signal.SIGKILL, is_alone=False)
    fields = received[1]
    code = fields["code"]
    return End(
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        is_alone=fields["alone"],
        io_read_bytes=fields["read"] * _BLOCK_BYTES,
        io_written_bytes=fields["written"] * _BLOCK_BYTES,
        cpu_user_seconds=fields["user"],
        cpu_system_seconds=fields["system"],
    )


def _fork(run: Callable[[], None], namespaces: int) -> int:
    """Only children are born into the new PID namespace, so the keeper itself stays where it is."""
    host_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.unshare(namespaces)
        pid = os.fork()
        if pid == 0:
            run()
        syscalls.setns(host_pids, syscalls.CLONE_NEWPID)
        return pid
    finally:
        os.close(host_pids)


def _fork_rootless(run: Callable[[], None], namespaces: int) -> int:
    """setns(2) back to the host's PID namespace is host root's alone: only the child may ever leave it."""
    pid = syscalls.fork(namespaces)
    if pid == 0:
        run()
    return pid
