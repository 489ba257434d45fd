"""A running job, followed by its keeper: output into the log, deadlines, stops, samples, and its end.

One poll(2) loop over four descriptors: the job's two output pipes, init's channel, and a pipe that signals write to;
and over those of its services, if it has any.
Nothing here waits for the agent, Redis or a reader of the log.
"""

import os
import select
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dayfly.runtime.container import Container
from dayfly.runtime.init_process import End, Refusal
from dayfly.worker import jobfiles
from dayfly.worker.disk_looks import DiskLooks
from dayfly.worker.jobdir import JobDirectory
from dayfly.worker.logfile import NOTE, STDERR, STDOUT, LogWriter
from dayfly.worker.record import Record
from dayfly.worker.samples import Samples
from dayfly.worker.services import Hindrance, Services
from dayfly.worker.stop_requests import StopRequests

if TYPE_CHECKING:
    from dayfly.worker.masked_log import MaskedLog
    from dayfly.worker.masking import Masker

_CHUNK = 64 << 10
_DRAIN_SECONDS = 2.0  # for what is in the pipes after the job's death, though a stray process may hold them open


@dataclass(frozen=True)
class Outcome:
    """What supervision saw: why it ended, how the command did, when, and what was read meanwhile."""

    cause: str
    end: End
    started_at: float | None
    finished_at: float
    samples: Samples
    log: LogWriter
    message: str | None = None
    spawn_errno: int | None = None


class Supervision:
    """Make it before the job starts, then `follow` or `refused`."""

    def __init__(
        self,
        container: Container,
        record: Record,
        directory: JobDirectory,
        stops: StopRequests,
        masker: "Masker | None",
    ) -> None:
        """`masker` takes the job's secrets out of its log; None: it has none."""
        self._container = container
        self._record = record
        self._directory = directory
        self._stops = stops
        self._log = LogWriter(directory.fd, record.log_limit_bytes)
        self._masked = None if masker is None else _masked(self._log, masker)
        self._output = self._masked or self._log
        self._samples = Samples(container)
        self._disk_looks = DiskLooks(container.disk)
        self._cause: str | None = None
        self._kill_at: float | None = None
        self._timeout_at: float | None = None
        self._poll = select.poll()
        self._services: Services | None = None
        self._pipes = {container.init.stdout: STDOUT, container.init.stderr: STDERR}
        for fd in self._pipes:  # a job may read its own output before us, from /proc/self/fd/1
            os.set_blocking(fd, False)

    def note(self, lines: Iterable[str]) -> None:
        """Say something of our own in the job's log."""
        for line in lines:
            self._output.write(NOTE, f"{line}\n".encode(errors="backslashreplace"))

    def refused(self, refusal: Refusal) -> Outcome:
        """The outcome of a command that could not be executed: the job's fault, told in its log too."""
        self.note([refusal.message])
        end = End(refusal.exit_code, None, is_alone=True)
        return Outcome("exited", end, None, time.time(), self._samples, self._log, refusal.message, refusal.errno)

    def hindered(self, hindrance: Hindrance) -> Outcome:
        """The outcome of a job that was not started, since its services do not serve or it was stopped before."""
        if hindrance.message is not None:
            self.note([hindrance.message])
        self._output.close()
        end = End(None, None, is_alone=True)
        return Outcome(hindrance.cause, end, None, time.time(), self._samples, self._log, hindrance.message)

    def follow(self, services: Services | None = None) -> Outcome:
        """Follow the job to its end. What its services took of its time counts against its timeout."""
        started_at = time.time()
        self._directory.mark(jobfiles.RUNNING)
        if self._record.timeout_seconds is not None:
            began_at = time.monotonic() if services is None else services.began_at
            self._timeout_at = began_at + self._record.timeout_seconds
        if services is not None:
            self._services, self._samples = services, Samples(self._container)
            services.attach(self._poll)
        for fd in (*self._pipes, self._stops.fd, self._container.init.end_fd):
            self._poll.register(fd, select.POLLIN)
        end = self._until_end()
        finished_at = time.time()
        if not end.is_alone:
            self._container.unthrottle()
            self._container.init.reap()  # every process of the job is dead from here on
        self._drain()
        return Outcome(self._cause or "exited", end, started_at, finished_at, self._samples, self._log)

    def _until_end(self) -> End:
        while True:
            ready = self._poll.poll(self._milliseconds_to_next())
            fds = {fd for fd, _ in ready}
            for fd in fds & self._pipes.keys():
                self._pump(fd)
            if self._stops.fd in fds:
                self._heed_stop()
            if self._services is not None:
                self._services.hear(fds)
            if self._container.init.end_fd in fds:
                return self._container.init.end()
            self._keep_time()

    def _pump(self, fd: int) -> None:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:  # what poll(2) saw has been read by the job
            return
        if chunk:
            self._output.write(self._pipes[fd], chunk)
            if pause := self._log.gather_seconds(len(chunk)):
                time.sleep(pause)
        else:
            self._poll.unregister(fd)
            del self._pipes[fd]

    def _drain(self) -> None:
        """Read what is left in the pipes, which is all of it once no process holds them."""
        deadline = time.monotonic() + _DRAIN_SECONDS
        poll = self._poll = select.poll()
        for fd in self._pipes:
            poll.register(fd, select.POLLIN)
        while self._pipes:
            left = deadline - time.monotonic()
            ready = poll.poll(max(0.0, left) * 1000)
            for fd, _ in ready:
                self._pump(fd)
            if not ready or left < 0:
                break
        self._output.close()

    def _heed_stop(self) -> None:
        stop = self._stops.heed()
        if stop is not None:
            self._stop(stop.cause, stop.is_urgent)

    def _stop(self, cause: str, is_urgent: bool) -> None:
        """Stop the job for `cause`; the first one stands, but a cancel beats a timeout. A later stop can be quicker."""
        if self._cause is None or (self._cause, cause) == ("timed_out", "cancelled"):
            self._cause = cause
        if is_urgent:
            self._container.init.kill()
        elif self._kill_at is None:
            self._container.init.stop()
            self._kill_at = time.monotonic() + self._record.stop_grace_seconds

    def _keep_time(self) -> None:
        now = time.monotonic()
        if self._timeout_at is not None and now >= self._timeout_at:
            self._timeout_at = None
            self._stop("timed_out", is_urgent=False)
        if self._kill_at is not None and now >= self._kill_at:
            self._container.init.kill()
        if self._stops.is_lease_over():
            self._stop("lease_lost", is_urgent=True)
        if self._masked is not None:
            self._masked.let_go(now)
        self._samples.take_if_due(now)
        self._disk_looks.look_if_due(now)

    def _milliseconds_to_next(self) -> float:
        now = time.monotonic()
        held = None if self._masked is None else self._masked.due_at
        moments = (self._timeout_at, self._kill_at, self._samples.due_at, self._disk_looks.due_at, held)
        waits = [at - now for at in moments if at is not None]
        return max(0.0, min(*waits, self._stops.lease_left())) * 1000 + 1


def _masked(log: LogWriter, masker: "Masker") -> "MaskedLog":
    from dayfly.worker.masked_log import MaskedLog  # lean: most jobs have no secrets

    return MaskedLog(log, masker)
