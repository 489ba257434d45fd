"""An ordinary user's way to the host's network: the user's own network namespace, in which the bridge stands.

    job ── bridge, policy, NAT ── uplink, a tap ── pasta ── its sockets, in the host's namespace

All of the left is as root has it on the host; no job is joined to pasta itself, whose view of the world is the host's.
The namespace belongs to the worker's user namespace, and no job has rights over it. It is mounted in the worker's own
mount namespace and gone with the worker's last process.

Nobody but root could come back from it. So the network's process becomes two: one goes in and serves keepers, the
other stays outside and starts pasta, again and again if need be, until the first one ends.
"""

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
        return lines[-1][:200] if lines else f"it made no link within {_UP_SECONDS:.0f} s and said nothing"


def enter(home: str) -> tuple[Uplink, OuterHost]:
    """Returns inside, in a child; the process that called stays outside and ends with that child. Raises HostError."""
    uplink, outer = Uplink(home), OuterHost()
    uplink.make()
    server = os.fork()
    if server:
        _supervise(uplink, os.pidfd_open(server))
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    uplink.enter()
    return uplink, outer


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


def _supervise(uplink: Uplink, server: int) -> None:
    """Never returns."""
    set_title("dayfly: uplink")
    program = uplink.start()
    while True:
        ready = select.select([server, program], [], [])[0]
        if server in ready:
            os._exit(0)  # and the program with us
        os.waitid(os.P_PIDFD, program, os.WEXITED)
        os.close(program)
        select.select([server], [], [], _AGAIN_AFTER_SECONDS)
        program = uplink.start()
