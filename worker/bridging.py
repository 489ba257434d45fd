"""What a worker offers of the network: whether it has a bridge, and what of it one job gets.

Nothing here costs a worker whose jobs want none: the host is asked when the first job comes that wants a bridge.
"""

import contextlib
import math
import os
import socket
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import structlog

from dayfly.jobs.errors import HostError, SpecError
from dayfly.jobs.network import Network
from dayfly.jobs.spec import JobSpec
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.network.names import bridge_name
from dayfly.runtime.network.settings import JOBS_AT_MOST, JOBS_OF_A_USER_AT_MOST, NetworkSettings
from dayfly.runtime.shape import BridgeUse
from dayfly.worker import joblock
from dayfly.worker.places import Places
from dayfly.worker.settings import WorkerSettings

_REDIS_PORT = 6379
_ASK_AGAIN_SECONDS = 60.0

log = structlog.get_logger()


class Bridging:
    """Of one worker."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._why_not: str | None = None
        self._asked_again_at = -math.inf

    def mode(self, spec: JobSpec) -> Network:
        """What the job gets: AUTO is a bridge where there is one, else nothing. Raises SpecError."""
        mode = spec.network.mode
        if mode is Network.AUTO:
            return Network.NONE if self.why_not else Network.BRIDGE
        if mode is Network.HOST:
            self._check_host(spec)
        if mode is Network.BRIDGE and self.why_not:
            raise SpecError("network", f"this worker has no bridge: {self.why_not}")
        return mode

    def use(self, spec: JobSpec) -> BridgeUse:
        """The job's part of the bridge. Raises SpecError when it asks for more than the operator allows."""
        defaults, stated = self._settings.defaults, spec.limits.network
        return BridgeUse(
            allow=self._allowed(spec.network.allow),
            ingress_bps=stated.ingress_bps or defaults.network_ingress_bps,
            egress_bps=stated.egress_bps or defaults.network_egress_bps,
        )

    def why_none(self, spec: JobSpec) -> str | None:
        """Why a job that would have had a bridge has none."""
        return self.why_not if spec.network.mode is Network.AUTO else None

    @property
    def why_not(self) -> str | None:
        """Why this worker has no bridge; None when it has. A no is asked about again after a minute: a host may be on
        its way up."""
        if time.monotonic() >= self._asked_again_at:
            self._why_not = self._find_out()
            self._asked_again_at = math.inf if self._why_not is None else time.monotonic() + _ASK_AGAIN_SECONDS
        return self._why_not

    def _find_out(self) -> str | None:
        """What the network's own process needs to know is written down."""
        if not self._settings.network.bridge:
            return "its operator has switched it off ([network] bridge)"
        from dayfly.runtime.network.possible import why_not  # nft and ipaddress: for who has such jobs only

        settings = network_settings(self._settings)
        reason = why_not(settings)
        if reason is not None:
            return f"{reason.message}; {reason.remedy}" if reason.remedy else reason.message
        settings.save(str(self._settings.home))
        return None

    def _check_host(self, spec: JobSpec) -> None:
        if not self._settings.allow.network_host:
            raise SpecError("network", "the operator of this worker does not allow host ([allow] network_host)")
        if spec.limits.network.ingress_bps or spec.limits.network.egress_bps:
            raise SpecError("limits.network", "cannot be enforced on the host's own network; use network: bridge")

    def _allowed(self, allow: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if not allow:
            return allow
        from dayfly.runtime.network.ranges import is_within

        within = (*self._settings.network.egress, *self._settings.allow.network)
        for number, each in enumerate(allow):
            if not is_within(each, within):
                offered = ", ".join(within) or "nothing"
                reason = f"{each} is not in what the operator of this worker allows ([allow] network): {offered}"
                raise SpecError(f"network.allow[{number}]", reason)
        return allow


def leave_bridge(tag: str) -> None:
    """Take the bridge of a home away, when it has one; nobody may use it any more."""
    try:
        socket.if_nametoindex(bridge_name(tag))
    except OSError:
        return
    from dayfly.runtime.network.bridge import take_down  # pyroute2: for who has had such jobs only

    try:
        take_down(tag)
    except HostError as error:
        log.error("cannot take the bridge away", why=str(error))


def leave_unused_bridge(home: Path) -> None:
    """leave_bridge() of a home whose worker was killed; not while another one, or a job that it left, is there."""
    places = Places(home)
    if not os.path.isdir(places.jobs):
        return  # no worker of it has got as far as taking a job
    with contextlib.suppress(HostError), places.held():  # else a worker serves: it takes its own away
        if not any(joblock.holder(places.job(job_id)) for job_id in os.listdir(places.jobs)):
            leave_bridge(WorkerSettings(home, "", "").cgroup_tag)


def network_settings(settings: WorkerSettings) -> NetworkSettings:
    """What the network's own process is told."""
    network = settings.network
    return NetworkSettings(
        tag=settings.cgroup_tag,
        subnet4=network.subnet,
        subnet6=network.subnet6,
        dns=network.dns,
        egress=network.egress,
        deny=network.deny,
        never=_server_of(settings.url),
        jobs_at_most=JOBS_AT_MOST if own_id_map() is None else JOBS_OF_A_USER_AT_MOST,
    )


def _server_of(url: str) -> tuple[tuple[str, int], ...]:
    """Every (address, port) at which the queue's server may answer; none behind a socket of this host."""
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        return ()
    port = parts.port or _REDIS_PORT
    try:
        found = socket.getaddrinfo(unquote(parts.hostname), port, type=socket.SOCK_STREAM)
    except OSError:  # then the worker cannot reach it either, and says so
        return ()
    return tuple(dict.fromkeys((str(address[0]).partition("%")[0], port) for *_, address in found))
