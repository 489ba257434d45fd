"""What an agent does on a timer for its host: sweep, and let expire what outlives jobs."""

import threading
import time
from collections.abc import Callable, Collection

import structlog

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups.hierarchy import Hierarchy
from dayfly.worker.bridging import leave_bridge
from dayfly.worker.sweeper import Sweeper

_SWEEP_SECONDS = 60.0
_SWEEP_SOON_SECONDS = 1.0
_SWEEP_TAKES_SECONDS = 0.2  # at most: leases and logs wait for it
_EXPIRE_SECONDS = 3600.0

log = structlog.get_logger()


class Housekeeping:
    """`expire` is retention.py's, `living` tells the tokens of the keepers that the agent follows."""

    def __init__(self, sweeper: Sweeper, expire: Callable[[], None], living: Callable[[], Collection[str]]) -> None:
        self.due_at = 0.0
        self._sweeper = sweeper
        self._expire = expire
        self._living = living
        self._expire_at = 0.0

    def keep(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        if now >= self.due_at:
            self.due_at = now + _SWEEP_SECONDS
            self.sweep()
        if now >= self._expire_at:
            self._expire_at = now + _EXPIRE_SECONDS
            threading.Thread(target=self._expire, name="dayfly-expire", daemon=True).start()

    def sweep_now(self) -> None:
        """Something was killed that could not tidy up after itself."""
        self.due_at = 0.0

    def sweep_soon(self) -> None:
        """Something may be left."""
        self.due_at = min(self.due_at, time.monotonic() + _SWEEP_SOON_SECONDS)

    def sweep(self, within_seconds: float = _SWEEP_TAKES_SECONDS) -> None:
        """Once; what is not done in that time, since a job's files may be a million, is done soon."""
        try:
            swept = self._sweeper.sweep(self._living(), within_seconds)
        except (OSError, HostError) as error:
            log.error("cannot sweep", why=str(error))
            return
        if self._sweeper.is_behind:
            self.sweep_soon()
        if swept:
            log.info("swept", things=swept)


def leave_host(hierarchy: Hierarchy, tag: str) -> None:
    """Take away what the jobs of this home have shared, now that there are none."""
    hierarchy.leave()
    leave_bridge(tag)
