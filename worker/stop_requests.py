"""What can end a job from outside of it: a stop that the agent wrote down, and the lease, while it runs and after.

Made ahead of the job: a stop may come at any moment.
"""

import json
import os
import select
import signal
import time
from dataclasses import dataclass

from dayfly.worker import jobfiles
from dayfly.worker.jobdir import JobDirectory

_LEASE_MARGIN_SECONDS = 1.0  # to be dead when the lease ends, not to begin dying


@dataclass(frozen=True)
class Stop:
    cause: str
    is_urgent: bool


class StopRequests:
    """Readable `fd`: the agent has written why to stop; `heed` says what."""

    def __init__(self, directory: JobDirectory) -> None:
        self.fd = _signals_to_pipe()
        self._directory = directory
        self._lease_until: float | None = None

    def heed(self) -> Stop | None:
        """What the agent wrote before its SIGTERM."""
        os.read(self.fd, 4096)
        try:
            stop = json.loads(self._directory.read(jobfiles.STOP))
        except FileNotFoundError:  # somebody's kill(1), not the agent's: it has no reason, so it is not heeded
            return None
        return Stop(stop["reason"], stop["now"])

    def look(self) -> Stop | None:
        """The same without waiting, and a lease that is over is a stop too."""
        if select.select([self.fd], [], [], 0)[0] and (stop := self.heed()) is not None:
            return stop
        return Stop("lease_lost", is_urgent=True) if self.is_lease_over() else None

    def is_lease_over(self) -> bool:
        """Whether the lease has ended, and the agent has not moved it on."""
        if self.lease_left() > 0:
            return False
        self._lease_until = self._directory.lease_ends_at()
        return self.lease_left() <= 0

    def lease_left(self) -> float:
        """Seconds until the job must die, unless the agent has moved the lease on (CLOCK_BOOTTIME: counts suspend)."""
        if self._lease_until is None:
            self._lease_until = self._directory.lease_ends_at()
        if self._lease_until is None:  # the bench, not a queue, is our agent
            return 3600.0
        return self._lease_until - _LEASE_MARGIN_SECONDS - time.clock_gettime(time.CLOCK_BOOTTIME)


def _signals_to_pipe() -> int:
    """A descriptor that becomes readable when SIGTERM arrives."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGTERM, lambda received, frame: None)
    return reader
