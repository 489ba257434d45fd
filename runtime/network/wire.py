"""A keeper's side of the network: has its job's namespace put on the bridge, and reads what was refused to it.

    keeper ──► {"index", "allow", …} + a socket for the answer + the network namespace   (SOCK_SEQPACKET, shared by all)
    keeper ◄── {"table", "address4", "address6"} + a socket of netfilter's, if keepers have none   or   {"step", …}
    keeper ──► {"forget": index}

The other side is a process of its own (`server.py`), since links take pyroute2. Keepers import this file: lean.
"""

import errno
import json
import os
import select
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dayfly.jobs.errors import HostError
from dayfly.jobs.ports import PublishedPort
from dayfly.runtime.idrange import HeldPlace
from dayfly.runtime.network import kept_elements
from dayfly.runtime.network.refused import Refused, read_refused
from dayfly.runtime.network.settings import JOBS_OF_A_USER_AT_MOST
from dayfly.runtime.shape import BridgeUse

_SECONDS = 30.0
_LARGEST_ANSWER = 1 << 16
_STEP = "put the job on the bridge"


class Wire:
    """The network of one container on the bridge; the kernel takes it away with the namespace."""

    def __init__(
        self,
        table: str,
        address4: str,
        address6: str | None,
        index: int,
        home: str,
        requests: int,
        netfilter: socket.socket | None,
    ) -> None:
        self.address4 = address4
        self.address6 = address6
        self.table = table
        self._index = index
        self._home = home
        self._requests = requests
        self._netfilter = netfilter
        self._has_refused = False

    @classmethod
    def attach(cls, home: str, requests: int, index: int, use: BridgeUse, init_pid: int) -> "Wire":
        """Put the network namespace of `init_pid` on the bridge of `home`. Raises HostError."""
        answers, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with answers:
            namespace = os.open(f"/proc/{init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            with its:
                try:
                    _ask(requests, {"index": index, **_fields(use)}, [its.fileno(), namespace])
                finally:
                    os.close(namespace)
            answer, netfilter = _receive(answers)
        if "table" not in answer:
            raise HostError(**answer)
        return cls(**answer, index=index, home=home, requests=requests, netfilter=netfilter)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The job's."""
        return (self.address4, *([self.address6] if self.address6 else []))

    @contextmanager
    def published(self, ports: Iterable[PublishedPort]) -> Iterator[None]:
        """Lead ports of the host to the job within the block. Raises `PortInUseError`, HostError."""
        from dayfly.runtime.network.published import published  # nft: for who has such ports only

        with published(self.table, self.addresses, ports) as script:
            try:
                kept_elements.keep(self._home, self._index, kept_elements.PORTS, script)
                yield
            finally:
                kept_elements.drop(self._home, self._index, kept_elements.PORTS)

    def refused(self) -> Refused | None:
        """What the policy refused until now. Raises OSError."""
        refused = read_refused(self.table, self.address4, self.address6, self._netfilter)
        self._has_refused = refused is not None
        return refused

    def close(self) -> None:
        """Have what was noted down of refusals forgotten. Without it, that is done for the next job of this place."""
        if self._has_refused:
            with suppress(HostError):  # nobody is there who could, and nothing waits for it
                _ask(self._requests, {"forget": self._index}, [])
        if self._netfilter is not None:
            self._netfilter.close()


def take_place(home: str) -> HeldPlace:
    """A place on the bridge of an ordinary user's worker, whose jobs hold no range of ids. Raises HostError."""
    path = f"{home}/run/places.lock"
    place = HeldPlace.acquire(path, JOBS_OF_A_USER_AT_MOST, os.getpid() % JOBS_OF_A_USER_AT_MOST)
    if place is None:
        raise HostError(_STEP, path, None, "run fewer jobs at a time", reason="each place on the bridge is taken")
    return place


def _fields(use: BridgeUse) -> dict[str, Any]:
    return {name: getattr(use, name) for name in use.__dataclass_fields__}


def _ask(requests: int, fields: dict[str, Any], fds: list[int]) -> None:
    if requests < 0:
        raise HostError(_STEP, reason="this launcher has no network")
    shared = socket.socket(fileno=os.dup(requests))
    with shared:
        try:
            socket.send_fds(shared, [json.dumps(fields).encode()], fds)
        except OSError as error:
            raise HostError(_STEP, None, error.errno) from error


def _receive(answers: socket.socket) -> tuple[dict[str, Any], socket.socket | None]:
    """The answer, and the socket that came with it.

    Raises HostError; one that no answer comes to may have a better end at the next try, hence EAGAIN.
    """
    if not select.select([answers], [], [], _SECONDS)[0]:
        raise HostError(_STEP, None, errno.EAGAIN, reason=f"the network's process has not answered in {_SECONDS:.0f} s")
    raw, fds, _, _ = socket.recv_fds(answers, _LARGEST_ANSWER, 1, socket.MSG_CMSG_CLOEXEC)
    if not raw:
        raise HostError(_STEP, None, errno.EAGAIN, reason="the network's process died; the worker's log says why")
    answer: dict[str, Any] = json.loads(raw)
    return answer, socket.socket(fileno=fds[0]) if fds else None
