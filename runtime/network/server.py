"""The network's own process, `dayfly: network`: puts the namespaces of keepers on the bridge, one after the other.

It is started by the launcher when the first keeper asks (`activation.py`), and ends when launcher and keepers, which
hold the other end of its socket, have gone. It holds nothing that would be lost with it: when it dies the next request
starts another one. While it lives it brings the policy back when somebody flushes it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

from dayfly.jobs.errors import HostError
from dayfly.runtime.network.watch import TableWatch
from dayfly.runtime.title import set_title

if TYPE_CHECKING:
    from dayfly.runtime.network.bridge import Bridge

_LARGEST_REQUEST = 1 << 17


def main(requests_fd: int, home: str) -> None:
    """Serve until nobody is left who could ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_title("dayfly: network")
    requests, tables = socket.socket(fileno=requests_fd), TableWatch()
    bridge: Bridge | None = None
    while True:
        ready = select.select([requests.fileno(), tables.fd], [], [])[0]
        if tables.fd in ready:
            tables.clear()
            _mend(bridge)
        if requests.fileno() in ready:
            request, fds, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 2)
            if not request:
                return
            bridge = _serve(bridge, home, json.loads(request), fds)


def _serve(bridge: Bridge | None, home: str, request: dict[str, Any], fds: list[int]) -> Bridge | None:
    """One request; the bridge, which is opened for the first."""
    try:
        bridge = bridge or _bridge(home)
        if "forget" in request:
            bridge.forget(request["forget"])
            return bridge
        answer = _plug(bridge, request, fds[1])
    except (HostError, OSError, ImportError) as error:
        answer = _fault(error)
    finally:
        for fd in fds[1:]:
            os.close(fd)
    if fds:
        _send(fds[0], answer)
    else:
        _say(answer["reason"] or answer["step"])
    return bridge


def _mend(bridge: Bridge | None) -> None:
    """Where the policy is gone, bring it back at once, for jobs that run."""
    try:
        if bridge is not None:
            bridge.mend()
    except (HostError, OSError) as error:
        _say(str(error))


def _bridge(home: str) -> Bridge:
    """Imported with a request in hand, so that a host without pyroute2 says so to the job."""
    from dayfly.runtime.network.bridge import Bridge
    from dayfly.runtime.network.settings import NetworkSettings

    return Bridge(home, NetworkSettings.load(home))


def _plug(bridge: Bridge, request: dict[str, Any], netns_fd: int) -> dict[str, Any]:
    from dayfly.runtime.network.links import Plug

    allow = None if request["allow"] is None else tuple(request["allow"])
    place = bridge.plug(Plug(request["index"], request["ingress_bps"], request["egress_bps"]), allow, netns_fd)
    return {"table": place.table, "address4": place.address4, "address6": place.address6}


def _fault(error: HostError | OSError | ImportError) -> dict[str, Any]:
    if isinstance(error, ImportError):
        remedy = "install dayfly with its dependencies"
        error = HostError("put the job on the bridge", None, None, remedy, reason=str(error))
    if isinstance(error, OSError):
        error = HostError("put the job on the bridge", error.filename, error.errno)
    return {name: getattr(error, name) for name in ("step", "path", "errno", "remedy", "reason")}


def _send(answers_fd: int, answer: dict[str, Any]) -> None:
    with socket.socket(fileno=answers_fd) as answers:
        try:
            answers.send(json.dumps(answer).encode())
        except OSError as error:  # the keeper has gone; its namespace goes too, and with it the job's end
            _say(f"a keeper did not wait for its answer: {error.strerror}")


def _say(text: str) -> None:
    """In the worker's log."""
    sys.stderr.write(f"dayfly: network: {text}\n")
