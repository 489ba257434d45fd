"""The launcher: a lean process that forks keepers ahead of need.

A fork costs what its parent has imported (0.5 ms here, 2 ms from an agent with redis in it), so keepers are born from
this one. It hears the agent on a SOCK_SEQPACKET socket:

    agent ──► {"token", "shape"} + read end of a control pipe (SCM_RIGHTS)
    agent ◄── {"token", "pid"}   or   {"token", "error"}

When the agent's end closes the launcher leaves; its keepers then belong to PID 1 and go on.
"""

import gc
import json
import os
import select
import signal
import socket
from typing import TYPE_CHECKING, Any

from dayfly.jobs.errors import DayflyError
from dayfly.runtime import seccomp
from dayfly.runtime.cgroups.hierarchy import open_hierarchy
from dayfly.runtime.container import Host
from dayfly.runtime.disk_template import template
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.network.activation import NetworkProcess
from dayfly.runtime.rootfs import layout, make_stage
from dayfly.runtime.shape import Shape
from dayfly.runtime.title import set_title
from dayfly.worker import keeper

if TYPE_CHECKING:
    from dayfly.runtime.oci.oci_runtime import OciRuntime

_LARGEST_REQUEST = 1 << 17


def main(socket_fd: int, home: str, cgroup_tag: str, paths: list[str], oci_runtime: str | None = None) -> None:
    """Serve the agent at the other end of `socket_fd` until it goes.

    `paths`: where `dayfly` is imported from; `oci_runtime`: what starts the jobs, unless we.
    """
    os.setsid()  # Ctrl-C on the agent's terminal is the agent's business
    set_title("dayfly: launcher")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent = socket.socket(fileno=socket_fd)
    network = NetworkProcess(home, paths)
    host = _open_host(home, cgroup_tag, network.requests, oci_runtime)
    gc.freeze()  # a collection in a fork would copy every page it touches
    gc.disable()
    _serve(agent, host, _Children(agent.fileno(), network))


class _Children:
    """Those that live, watched by pidfd beside the agent's socket: a handler of SIGCHLD would be theirs too."""

    def __init__(self, agent_fd: int, network: NetworkProcess) -> None:
        self._agent_fd = agent_fd
        self._network = network
        self._network_pidfd = -1
        self._pids: dict[int, int] = {}
        self._poll = select.poll()
        self._poll.register(agent_fd, select.POLLIN)
        self._poll.register(network.waiting_fd, select.POLLIN)

    def add(self, pid: int) -> int:
        pidfd = os.pidfd_open(pid)
        self._pids[pidfd] = pid
        self._poll.register(pidfd, select.POLLIN)
        return pidfd

    def reap_until_asked(self) -> None:
        """Collect those that have ended, until the agent asks or goes."""
        while True:
            ready = {fd for fd, _ in self._poll.poll()}
            for fd in ready & self._pids.keys():
                self._reap(fd)
            if self._network.waiting_fd in ready:
                self._start_network()
            if self._agent_fd in ready:
                return

    def _reap(self, pidfd: int) -> None:
        self._poll.unregister(pidfd)
        os.waitpid(self._pids.pop(pidfd), 0)
        os.close(pidfd)
        if pidfd == self._network_pidfd:  # it died: the next request starts another
            self._poll.register(self._network.waiting_fd, select.POLLIN)

    def _start_network(self) -> None:
        """While it lives it hears of requests itself."""
        self._network_pidfd = self.add(self._network.start())
        self._poll.unregister(self._network.waiting_fd)


def _serve(agent: socket.socket, host: Host | DayflyError, children: _Children) -> None:
    while True:
        children.reap_until_asked()
        request, fds, _, _ = socket.recv_fds(agent, _LARGEST_REQUEST, 1)
        if not request:
            return
        answer = _launch(host, json.loads(request), fds[0], agent)
        os.close(fds[0])
        if "pid" in answer:
            children.add(answer["pid"])
        try:
            agent.send(json.dumps(answer).encode())
        except (BrokenPipeError, ConnectionResetError):  # it is gone; the keeper finds its control pipe closed
            return


def _open_host(home: str, cgroup_tag: str, network_requests: int, oci_runtime: str | None) -> Host | DayflyError:
    """What all containers share; a host that cannot have any says why at each request."""
    try:
        hierarchy = open_hierarchy(cgroup_tag)
        filter_path = seccomp.cached(home)
        oci = None if oci_runtime is None else _open_runtime(oci_runtime, filter_path)
        filters = seccomp.load(filter_path)
        return Host(home, make_stage(home), hierarchy, filters, oci=oci, network_requests=network_requests)
    except DayflyError as error:
        return error


def _open_runtime(oci_runtime: str, filter_path: str) -> "OciRuntime":
    """Here and not at the head: what is imported costs every keeper that is forked."""
    from dayfly.runtime.oci.oci_runtime import OciRuntime
    from dayfly.runtime.oci.programs import find

    if own_id_map() is not None:
        raise DayflyError(
            f"cannot use the OCI runtime {oci_runtime}: this worker is not root",
            remedy="run it as root, or without [runtime] oci",
        )
    found = OciRuntime(find(oci_runtime), filter_path)
    found.section(None)
    return found


def _launch(host: Host | DayflyError, request: dict[str, Any], control: int, agent: socket.socket) -> dict[str, Any]:
    token = request["token"]
    if isinstance(host, DayflyError):
        return {"token": token, "error": str(host)}
    try:
        shape = Shape.from_json(request["shape"])
        if shape.disk_bytes:
            template(host.home, shape.disk_bytes, layout(shape.host_trees))  # opened here once, for every fork
        pid = os.fork()
    except (DayflyError, OSError) as error:
        return {"token": token, "error": str(error)}
    if pid == 0:
        agent.close()
        keeper.main(host, token, shape, control)
    return {"token": token, "pid": pid}
