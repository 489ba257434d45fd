"""The services of one job, from before its start to after its end.

    prepare ──► begin ── all ready ──► attach, hear (while the job runs) ──► stop ──► summaries, warnings ──► discard
                  └───── one is not, or the job is stopped ───────────────────┘

The job's own command is started only when every service serves. What happens to a service after that is the service's:
the job goes on, its outcome is its own, and a warning says what became of the service.
"""

import select
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dayfly.runtime.container import Container, Host
from dayfly.runtime.sibling import Sibling
from dayfly.worker.exit import ServiceExit
from dayfly.worker.jobdir import JobDirectory
from dayfly.worker.record import Record
from dayfly.worker.running_service import RunningService
from dayfly.worker.stop_requests import StopRequests

if TYPE_CHECKING:
    from dayfly.runtime.network.wire import Wire
    from dayfly.worker.masking import Masker

NOT_READY = "service_not_ready"


@dataclass(frozen=True)
class Hindrance:
    """Why the job was not started: the cause for exit.json, and a sentence."""

    cause: str
    message: str | None = None


class Services:
    """Used as a context manager: nothing of them is left at its end."""

    def __init__(self, record: Record, directory: JobDirectory, stops: StopRequests, masker: "Masker | None") -> None:
        """`masker` takes the job's secrets out of their logs too; None: it has none."""
        self.began_at = time.monotonic()
        self._record = record
        self._directory = directory
        self._stops = stops
        self._masker = masker
        self._services: list[RunningService] = []
        self._by_fd: dict[int, RunningService] = {}
        self._poll = select.poll()
        self._parts = ExitStack()
        self._ports = ExitStack()
        self._wire: Wire | None = None

    def __enter__(self) -> "Services":
        return self

    def __exit__(self, *_: object) -> None:
        with self._parts:
            self._ports.close()

    def prepare(self, host: Host, container: Container) -> None:
        """Make all of their containers beside the job's, which was not started yet. Raises HostError."""
        container.divide()
        self._wire = container.wire
        for plan in self._record.services:
            sibling = Sibling.prepare(host, container, plan.container.shape, plan.name)
            self._parts.callback(sibling.discard)
            self._services.append(RunningService(plan, sibling, self._directory.fd, self._masker))

    def begin(self) -> Hindrance | None:
        """Start all of them, and wait until each serves. None: so it is. Raises HostError."""
        failure = self._publish()
        if failure is not None:
            return Hindrance(NOT_READY, failure)
        self.attach(select.poll())
        self._poll.register(self._stops.fd, select.POLLIN)
        for service in self._services:
            service.start()
        while (hindrance := self._hindrance()) is None and not all(each.is_ready for each in self._services):
            fds = {fd for fd, _ in self._poll.poll(self._milliseconds_to_next())}
            if self._stops.fd in fds and (stop := self._stops.heed()) is not None:
                return Hindrance(stop.cause)
            self.hear(fds)
        return hindrance

    def attach(self, poll: select.poll) -> None:
        """Have `poll` tell of them from now on."""
        self._poll = poll
        self._by_fd = {fd: service for service in self._services for fd in service.fds}
        for fd in self._by_fd:
            poll.register(fd, select.POLLIN)

    def hear(self, fds: Collection[int]) -> None:
        """Take what there is to read from those of `fds` that are a service's."""
        for fd in self._by_fd.keys() & fds:
            service = self._by_fd[fd]
            service.hear(fd)
            if fd not in service.fds:
                self._poll.unregister(fd)
                del self._by_fd[fd]

    def stop(self) -> None:
        """End all of them: at once, or with the grace that a service states; a stop of the job cuts that short."""
        self.attach(select.poll())
        self.hear({fd for fd, _ in self._poll.poll(0)})  # who has ended by itself was not stopped
        self._poll.register(self._stops.fd, select.POLLIN)
        kill_at = {each: time.monotonic() + each.plan.stop_grace_seconds for each in self._services if _has_grace(each)}
        for service in self._services:
            (service.stop if service in kill_at else service.kill)()
        while waiting := [at for service, at in kill_at.items() if service.end is None and at > time.monotonic()]:
            seconds = min([*waiting, time.monotonic() + self._stops.lease_left()]) - time.monotonic()
            fds = {fd for fd, _ in self._poll.poll(max(0.0, seconds) * 1000 + 1)}
            if self._stops.fd in fds or self._stops.is_lease_over():
                break  # what it says is for the job's end to hear (ending.py)
            self.hear(fds)
        self._end_all()
        self._ports.close()  # before the job's end is told: its next attempt may want them

    def summaries(self) -> tuple[ServiceExit, ...]:
        """How each went, in the document's order; after `stop`. Those that were not even prepared are left out."""
        return tuple(service.summary() for service in self._services)

    def warnings(self) -> Iterator[str]:
        """What the job's result should say of services that did not serve to its end, though the job began."""
        for service in self._services:
            summary = service.summary()
            name = f"service {summary.name}"
            yield from (f"{name}: {note}" for note in service.notes)
            if summary.ready_seconds is None:
                continue
            if summary.state == "out_of_memory" or (summary.state == "exited" and summary.exit_code != 0):
                yield f"{name} {service.ending} before the job had ended{service.last_words()}"
            elif summary.oom_events:
                yield f"the kernel killed processes of {name} for memory, yet it went on"

    def _publish(self) -> str | None:
        """Lead ports of the host to them. None: so it is; else which one is another's. Raises HostError."""
        ports = [port for plan in self._record.services for port in plan.ports]
        if self._wire is None or not ports:
            return None
        from dayfly.runtime.network.published import PortInUseError  # nft: for who has such ports only

        try:
            self._ports.enter_context(self._wire.published(ports))
        except PortInUseError as error:
            return str(error)
        return None

    def _end_all(self) -> None:
        """Kill all, wait for all, then read what they left: none may write to what another one has left."""
        for step in (RunningService.kill, RunningService.reap, RunningService.close):
            for service in self._services:
                step(service)

    def _hindrance(self) -> Hindrance | None:
        now = time.monotonic()
        failure = next(filter(None, (service.failure(now) for service in self._services)), None)
        if failure is not None:
            return Hindrance(NOT_READY, failure)
        if self._stops.is_lease_over():
            return Hindrance("lease_lost")
        timeout = self._record.timeout_seconds
        if timeout is not None and now >= self.began_at + timeout:
            waited_for = ", ".join(each.plan.name for each in self._services if not each.is_ready)
            return Hindrance("timed_out", f"the time was over while it waited for its services: {waited_for}")
        return None

    def _milliseconds_to_next(self) -> float:
        now = time.monotonic()
        moments = [service.due_at for service in self._services if not service.is_ready]
        if self._record.timeout_seconds is not None:
            moments.append(self.began_at + self._record.timeout_seconds)
        return max(0.0, min(*(at - now for at in moments), self._stops.lease_left())) * 1000 + 1


def _has_grace(service: RunningService) -> bool:
    return service.end is None and service.is_ready and service.plan.stop_grace_seconds > 0
