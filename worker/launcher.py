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
import signal
import socket
from typing import Any

from dayfly.jobs.errors import DayflyError
from dayfly.runtime import seccomp
from dayfly.runtime.cgroups.hierarchy import open_hierarchy
from dayfly.runtime.container import Host
from dayfly.runtime.disk_template import template
from dayfly.runtime.rootfs import layout, make_stage
from dayfly.runtime.shape import Shape
from dayfly.worker import keeper
from dayfly.worker.title import set_title

_LARGEST_REQUEST = 1 << 17

_keepers: set[int] = set()


def main(socket_fd: int, home: str, cgroup_tag: str) -> None:
    """Serve the agent at the other end of `socket_fd` until it goes."""
    os.setsid()  # Ctrl-C on the agent's terminal is the agent's business
    set_title("dayfly: launcher")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda received, frame: _reap())
    agent = socket.socket(fileno=socket_fd)
    host = _open_host(home, cgroup_tag)
    gc.freeze()  # a collection in a fork would copy every page it touches
    gc.disable()
    while True:
        request, fds, _, _ = socket.recv_fds(agent, _LARGEST_REQUEST, 1)
        if not request:
            return
        agent.send(json.dumps(_launch(host, json.loads(request), fds[0], agent)).encode())
        os.close(fds[0])


def _open_host(home: str, cgroup_tag: str) -> Host | DayflyError:
    """What all containers share; a host that cannot have any says why at each request."""
    try:
        hierarchy = open_hierarchy(cgroup_tag)
        return Host(home, make_stage(home), hierarchy, seccomp.load(seccomp.cached(home)))
    except DayflyError as error:
        return error


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
    _keepers.add(pid)
    return {"token": token, "pid": pid}


def _reap() -> None:
    """Collect keepers that have ended, and no other child: mke2fs is waited for where it was started."""
    for pid in list(_keepers):
        try:
            is_over = os.waitpid(pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # this handler, interrupted by itself, has collected it
            is_over = True
        if is_over:
            _keepers.discard(pid)
