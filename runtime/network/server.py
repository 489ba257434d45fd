"""The network's own process, `dayfly: network`: puts the namespaces of keepers on the bridge, one after the other.

It is started by the launcher when the first keeper asks (`activation.py`), and ends when launcher and keepers, which
hold the other end of its socket, have gone. It holds nothing that would be lost with it: when it dies the next request
starts another one. While it lives it brings the policy back when somebody flushes it.

An ordinary user's serves from a network namespace of the user's own (`uplink.py`), and hands each keeper a socket that
was made there: a keeper cannot go in to ask what was refused, since it could not come back.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dayfly.jobs.errors import HostError
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.network.nfnetlink import NETLINK_NETFILTER
from dayfly.runtime.network.watch import LinkWatch, TableWatch, Watch
from dayfly.runtime.title import set_title

if TYPE_CHECKING:
    from dayfly.runtime.network.bridge import Bridge
    from dayfly.runtime.network.outer_host import OuterHost
    from dayfly.runtime.network.uplink import Uplink

_LARGEST_REQUEST = 1 << 17


def main(requests_fd: int, home: str) -> None:
    """Serve until nobody is left who could ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_title("dayfly: network")
    os.set_inheritable(requests_fd, False)  # what we start has no part in it
    server = _Server(home)
    requests = socket.socket(fileno=requests_fd)
    while True:
        ready = select.select([requests.fileno(), *server.watched], [], [])[0]
        server.mend(ready)
        if requests.fileno() in ready:
            request, fds, _, _ = socket.recv_fds(requests, _LARGEST_REQUEST, 2)
            if not request:
                return
            server.serve(json.loads(request), fds)
            if server.is_hopeless:
                sys.exit(1)  # the next request starts another one, which may have more luck


class _Server:
    def __init__(self, home: str) -> None:
        self._home = home
        self._uplink: Uplink | HostError | None = None
        self._outer: OuterHost | None = None
        if own_id_map() is not None:
            self._leave_host()
        self._bridge: Bridge | None = None
        self._watches: list[Watch] = [TableWatch(), LinkWatch(), *([] if self._outer is None else [self._outer])]
        self.watched = [watch.fd for watch in self._watches]
        """Readable when mend() may have something to do."""

    def mend(self, ready: list[int]) -> None:
        """Where the policy is gone, or not about this host's addresses any more, bring it back for jobs that run; what
        jobs that were killed have left in it goes."""
        told = [watch for watch in self._watches if watch.fd in ready]
        try:
            for watch in told:
                watch.clear()
            if told and self._bridge is not None:
                self._bridge.mend()
                self._bridge.sweep()
        except (HostError, OSError) as error:
            _say(str(error))

    @property
    def is_hopeless(self) -> bool:
        """There will be no bridge of this process."""
        return isinstance(self._uplink, HostError)

    def serve(self, request: dict[str, Any], fds: list[int]) -> None:
        """One request: to forget what was refused to a job; or to plug one in, with the fds of wire.py."""
        try:
            self._bridge = self._bridge or self._open_bridge()
            if "forget" in request:
                self._bridge.forget(request["forget"])
                return
            answer = _plug(self._bridge, request, fds[1])
        except (HostError, OSError, ImportError) as error:
            answer = _fault(error)
        finally:
            for fd in fds[1:]:
                os.close(fd)
        if fds:
            self._answer(fds[0], answer)
        else:
            _say(answer["reason"] or answer["step"])

    def _leave_host(self) -> None:
        """To where an ordinary user may have a bridge; a fault of it is told to each who asks for one."""
        from dayfly.runtime.network import uplink

        try:
            self._uplink, self._outer = uplink.enter(self._home)
        except HostError as error:
            self._uplink = error
        except OSError as error:
            self._uplink = HostError("enter a network of this user's own", error.filename, error.errno)

    def _open_bridge(self) -> Bridge:
        """Imported with a request in hand, so that a host without pyroute2 says so to the job."""
        from dayfly.runtime.network.bridge import Bridge
        from dayfly.runtime.network.settings import NetworkSettings

        if isinstance(self._uplink, HostError):
            raise self._uplink
        if self._uplink is not None:
            self._uplink.await_up()
        return Bridge(self._home, NetworkSettings.load(self._home), self._outer)

    def _answer(self, answers_fd: int, answer: dict[str, Any]) -> None:
        with socket.socket(fileno=answers_fd) as answers, ExitStack() as given:
            fds = []
            try:
                if self._outer is not None and "table" in answer:
                    netfilter = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
                    fds.append(given.enter_context(netfilter).fileno())
                socket.send_fds(answers, [json.dumps(answer).encode()], fds)
            except OSError as error:  # the keeper has gone; its namespace goes too, and with it the job's end
                _say(f"a keeper did not get its answer: {error.strerror}")


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
    return error.fields()


def _say(text: str) -> None:
    """In the worker's log."""
    sys.stderr.write(f"dayfly: network: {text}\n")
