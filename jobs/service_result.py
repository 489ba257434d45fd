"""How a job's services went, as the Result has it and `dayfly explain` tells it."""

from __future__ import annotations

from dataclasses import dataclass, field

from dayfly.jobs.plain import reads
from dayfly.jobs.services import ServiceState
from dayfly.jobs.signals import signal_name
from dayfly.jobs.units import format_duration, format_size


@dataclass(frozen=True, slots=True)
class ServiceResult:
    """One service. `exit_code` and `signal` are those of its main process, also where we stopped it.

    `ready_seconds`: from its start; None when it never was. `log`: where its whole log is, None when it wrote nothing.
    """

    name: str
    image: str
    digest: str | None = None
    state: ServiceState = field(default=ServiceState.NOT_STARTED, metadata=reads(ServiceState))
    exit_code: int | None = None
    signal: int | None = None
    ready_seconds: float | None = None
    oom_events: int = 0
    cpu_seconds: float | None = None
    memory_peak_bytes: int | None = None
    log: str | None = None
    log_bytes: int = 0
    log_dropped_bytes: int = 0

    def describe(self, job_id: str) -> str:
        """One line for `dayfly explain`."""
        return f"service {self.name} ({self.image}): " + ", ".join(self._facts(job_id))

    def _facts(self, job_id: str) -> list[str]:
        facts = [] if self.ready_seconds is None else [f"ready after {format_duration(self.ready_seconds)}"]
        facts.append(_STATES[self.state] + self._end())
        if self.memory_peak_bytes is not None:
            facts.append(f"memory peak {format_size(self.memory_peak_bytes)}")
        if self.log_bytes:
            facts.append(f"log of {format_size(self.log_bytes)}: `dayfly logs {job_id} --service {self.name}`")
        return facts

    def _end(self) -> str:
        """Of one that ended by itself."""
        if self.state in (ServiceState.STOPPED, ServiceState.NOT_STARTED):
            return ""
        if self.exit_code is not None:
            return f" with exit code {self.exit_code}"
        return f" by {signal_name(self.signal)}" if self.signal is not None else ""


_STATES = {
    ServiceState.STOPPED: "stopped with the job",
    ServiceState.EXITED: "ended before the job",
    ServiceState.OUT_OF_MEMORY: "killed for memory",
    ServiceState.NOT_READY: "not ready, ended",
    ServiceState.NOT_STARTED: "not started",
}
