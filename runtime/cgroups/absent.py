"""No control groups: what a rootless worker has where systemd, or whoever started it, has delegated none to its user.

Nothing is limited and nothing is counted. A job that states a limit is refused (`lacking`), another one runs without,
and its result says so. Its processes end with its PID namespace, as they always do.
"""

from collections.abc import Sequence

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups.readings import Oom, Pressure, Sample, Usage
from dayfly.runtime.shape import Device, Quotas

UNLIMITED = "cpu, memory and processes were not limited: this worker has no control groups; see `dayfly doctor`"

_ALL = ("cpu", "memory", "pids", "io", "swap", "cpu_burst", "pressure", "devices")


class Hierarchy:
    """The interface of a hierarchy, and nothing behind it."""

    version = 0

    def __init__(self, reason: str) -> None:
        self.lacking = dict.fromkeys(_ALL, reason)
        """What cannot be limited or read here, and why: everything."""

    def describe(self) -> dict[str, object]:
        """For `dayfly doctor`."""
        return {"version": 0, "directories": {}, "lacking": dict(self.lacking)}

    def create(self, token: str, *, with_devices: bool = False) -> "Cgroup":
        """What stands in for a group. Raises `HostError` for one that should have a list of devices."""
        if with_devices:
            raise HostError("limit the job's devices", reason=self.lacking["devices"])
        return Cgroup()

    def existing(self) -> list[str]:
        """None."""
        return []

    def remove(self, token: str, within_seconds: float = 2.0) -> bool:
        """There is nothing to remove."""
        return True

    def leave(self) -> None:
        """Nothing was made."""


class Cgroup:
    """One job's lack of a group."""

    def __init__(self) -> None:
        self.joins: list[int] = []

    def restrict(self, only: Sequence[Device]) -> None:
        """There is none that could be asked for it (`create`)."""

    def divide(self, pid: int) -> None:
        """There is nothing to divide."""

    def within(self, name: str) -> "Cgroup":
        """What stands in for a service's group."""
        return Cgroup()

    def apply(self, quotas: Quotas) -> None:
        """Nothing can be limited; whoever states a limit was refused before (worker/plan.py)."""

    def effective(self) -> Quotas:
        """No limits."""
        return Quotas()

    def usage(self) -> Usage:
        """Nothing is counted."""
        return Usage()

    def cpu_seconds(self) -> tuple[float | None, float | None]:
        """Nothing is counted."""
        return None, None

    def current(self) -> Sample:
        """Nothing is counted."""
        return Sample(None, None)

    def oom(self) -> Oom:
        """What the kernel kills, it kills for the whole host's sake."""
        return Oom(0)

    def pressure(self) -> Pressure | None:
        """Nothing is counted."""
        return None

    def discard(self, within_seconds: float = 2.0) -> bool:
        """The job's processes are gone with its init."""
        return True
