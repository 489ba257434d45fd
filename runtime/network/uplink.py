"""An ordinary user's way to the host's network: the user's own network namespace, in which the bridge stands.

    job ── bridge, policy, NAT ── uplink, a tap ── pasta ── its sockets, in the host's namespace

All of the left is as root has it on the host; no job is joined to pasta itself, whose view of the world is the host's.
The namespace belongs to the worker's user namespace, and no job has rights over it. It is mounted in the worker's own
mount namespace and gone with the worker's last process.

Nobody but root could come back from it. So the network's process becomes two: one goes in and serves keepers, the
other stays outside and starts pasta, and either of them again when it dies, until nobody is left whom they serve.
"""

import fcntl
import os
import select
import signal
import socket
import sys
import time

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.network.forwarding import write_sysctl
from dayfly.runtime.network.outer_host import OuterHost
from dayfly.runtime.network.routes import uplinks
from dayfly.runtime.network.uplink_program import LINK, UplinkProgram
from dayfly.runtime.title import set_title

_STEP = "reach the host's network by"
_UP_SECONDS = 10.0
_AGAIN_AFTER_SECONDS = 1.0
_ROUTE_GROUPS = 0x1 | 0x40  # RTMGRP_LINK, RTMGRP_IPV4_ROUTE
_LARGEST = 1 << 16


class Uplink:
    """Of one home. Raises HostError where no program is there that could join it."""

    def __init__(self, home: str) -> None:
        self._program = UplinkProgram.find()
        self._namespace = f"{home}/run/network.ns"
        self._log = f"{home}/run/network.log"

    def make(self) -> None:
        """Make the namespace, unless an earlier process of this worker has. Raises OSError."""
        if os.path.ismount(self._namespace):
            return
        os.close(os.open(self._namespace, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        pid = os.fork()
        if pid == 0:
            _make_and_end(self._namespace)
        if os.waitpid(pid, 0)[1]:
            raise HostError("make a network namespace in", self._namespace, None, "the worker's log says why")

    def start(self) -> int:
        """Join it to the network that this process is in, as long as this process lives. Returns a pidfd."""
        return os.pidfd_open(self._program.start(self._namespace, self._log))

    def enter(self) -> None:
        """Be in the namespace from now on. Raises OSError."""
        namespace = os.open(self._namespace, os.O_RDONLY | os.O_CLOEXEC)
        syscalls.setns(namespace, syscalls.CLONE_NEWNET)
        os.close(namespace)

    def await_up(self, program_pidfd: int | None = None) -> None:
        """Until there is a way out of the namespace that this process is in. Raises HostError, at once when it ends."""
        deadline = time.monotonic() + _UP_SECONDS
        watched = () if program_pidfd is None else (program_pidfd,)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as changes:
            changes.bind((0, _ROUTE_GROUPS))
            told = changes.fileno()
            while LINK not in uplinks():
                ready = select.select([told, *watched], [], [], max(0.0, deadline - time.monotonic()))[0]
                if told not in ready:
                    raise HostError(
                        _STEP, self._program.path, None, "has this host a default route?", reason=self._last_words()
                    )
                changes.recv(_LARGEST)

    def _last_words(self) -> str:
        try:
            with open(self._log, encoding="utf-8", errors="replace") as file:
                lines = [line.strip() for line in file if line.strip()]
        except FileNotFoundError:
            lines = []
        return lines[-1][:200] if lines else "it made no link, and said nothing"


def enter(home: str) -> tuple[Uplink, OuterHost]:
    """Returns inside, in a child; the process that called stays outside and ends when nobody needs that child any more.

    Raises HostError, OSError.
    """
    uplink, outer = Uplink(home), OuterHost()
    uplink.make()
    supervisor = _Supervisor(uplink, home)
    while server := os.fork():
        supervisor.tend(server)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    uplink.enter()
    set_title("dayfly: network")
    return uplink, outer


class _Supervisor:
    """Outside: has the program running, and the server.

    One at a time, by a lock: a worker may have started a second process beside that of its last launcher, which jobs
    still need.
    """

    def __init__(self, uplink: Uplink, home: str) -> None:
        self._uplink = uplink
        self._lock = os.open(f"{home}/run/network.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._program: int | None = None
        self._start_at = 0.0

    def tend(self, server: int) -> None:
        """Until the server has died. It ends by itself when nobody is left who could ask, and we with it."""
        set_title("dayfly: uplink")
        pidfd = os.pidfd_open(server)
        while True:
            self._start_program()
            watched = [pidfd, *([] if self._program is None else [self._program])]
            ready = select.select(watched, [], [], None if self._program else _AGAIN_AFTER_SECONDS)[0]
            if pidfd in ready:
                break
            if self._program in ready:
                self._forget_program()
        os.close(pidfd)
        if os.waitpid(server, 0)[1] == 0:
            os._exit(0)
        select.select([], [], [], _AGAIN_AFTER_SECONDS)  # or one that dies at once would be forked without end

    def _start_program(self) -> None:
        if self._program is not None or time.monotonic() < self._start_at:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another one has it
        self._program = self._uplink.start()

    def _forget_program(self) -> None:
        assert self._program is not None
        os.waitid(os.P_PIDFD, self._program, os.WEXITED)
        os.close(self._program)
        self._program, self._start_at = None, time.monotonic() + _AGAIN_AFTER_SECONDS


def _make_and_end(path: str) -> None:
    """The life of a child: nobody could come back from the namespace that it makes. It forwards, and is not asked
    link by link whether it may: nothing but jobs is in it."""
    status = 1
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        for family in ("ipv4", "ipv6"):
            if os.path.exists(f"/proc/sys/net/{family}"):
                write_sysctl(f"{family}/conf/all/forwarding", "1")
        syscalls.mount("/proc/self/ns/net", path, None, syscalls.MS_BIND)
        status = 0
    except OSError as error:
        sys.stderr.write(f"dayfly: network: {error}\n")
    finally:
        os._exit(status)
