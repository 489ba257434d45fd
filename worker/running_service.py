"""One service of a job, as the keeper has it: its output into a log of its own, whether it serves, how it ended."""

import fcntl
import os
import time
from typing import TYPE_CHECKING

from dayfly.jobs.services import ServiceState
from dayfly.jobs.signals import signal_name
from dayfly.runtime.init_process import End, Serving, Tried
from dayfly.runtime.sibling import Sibling
from dayfly.worker.exit import LogSize, ServiceExit
from dayfly.worker.logfile import STDERR, STDOUT, LogWriter, service_log
from dayfly.worker.record import ServicePlan

if TYPE_CHECKING:
    from dayfly.worker.masked_log import MaskedLog
    from dayfly.worker.masking import Masker

_CHUNK = 64 << 10
_TAIL_BYTES = 2048
_TAIL_LINES = 3
_TAIL_SHOWN = 400


class RunningService:
    """Made with its container prepared; then `start`, `hear` while there are `fds`, `kill`, `reap`, `close`."""

    def __init__(self, plan: ServicePlan, sibling: Sibling, directory_fd: int, masker: "Masker | None") -> None:
        """`masker` takes the job's secrets out of its output; None: the job has none."""
        self.plan = plan
        self.is_ready = False
        self.end: End | None = None
        """How its main process ended; None while that lives."""
        self._sibling = sibling
        self._log = _TailedLog(directory_fd, plan.log_limit_bytes, service_log(plan.name))
        self._output = self._log if masker is None else _masked(self._log, masker)
        self._pipes = {sibling.init.stdout: STDOUT, sibling.init.stderr: STDERR}
        for fd in self._pipes:
            os.set_blocking(fd, False)
        self._started_at = self._ready_at = self._due_at = 0.0
        self._refusal: str | None = None
        self._tried: Tried | None = None
        self._was_stopped = False
        self._summary: ServiceExit | None = None

    @property
    def fds(self) -> set[int]:
        """What to poll: its output, and its init until that has told the end."""
        return {*self._pipes, *([] if self.end or self._summary else [self._sibling.init.end_fd])}

    @property
    def due_at(self) -> float:
        """When it must serve at the latest (time.monotonic())."""
        return self._due_at

    def start(self) -> None:
        """Execute its command. Raises HostError."""
        self._started_at = time.monotonic()
        self._due_at = self._started_at + self.plan.ready_timeout_seconds
        refusal = self._sibling.start(self.plan.container, self.plan.stop_signal)
        if refusal is not None:
            self._refusal = refusal.message
            self.end = End(refusal.exit_code, None, is_alone=True)
        elif self.plan.container.ready is None:
            self._serves()

    def hear(self, fd: int) -> None:
        """One of `fds` is readable."""
        if fd in self._pipes:
            if self._take(fd) == b"":
                del self._pipes[fd]
            return
        heard = self._sibling.init.hear()
        if isinstance(heard, Serving):
            self._serves()
        elif isinstance(heard, Tried):
            self._tried = Tried(_shown(heard.why), heard.is_final)
        else:
            self.end = heard
            self._take_all()  # its last words came before

    def failure(self, now: float) -> str | None:
        """Why the job cannot be started beside it, in a sentence; None when it serves, or may yet."""
        name = f"service {self.plan.name} ({self.plan.image_ref})"
        if self._refusal is not None:
            return f"{name} could not be started: {self._refusal}"
        if self.end is not None:
            return f"{name} {self.ending} before the job began{self._tries()}{self.last_words()}"
        if self.is_ready:
            return None
        if self._tried is not None and self._tried.is_final:
            return f"{name} cannot be asked whether it is ready: {self._tried.why}"
        if now < self._due_at:
            return None
        return f"{name} was not ready within {self.plan.ready_timeout_seconds:g} s{self._tries()}{self.last_words()}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the job's result should say of its set-up."""
        return self._sibling.init.notes

    @property
    def ending(self) -> str:
        """How it ended by itself, in words."""
        oom = self._sibling.oom().events if self._summary is None else self._summary.oom_events
        if oom and self.end is not None and self.end.exit_code != 0:
            return "was killed by the kernel for memory"
        if self.end is None or self.end.exit_code is None:
            return f"was ended by {signal_name(self.end.signal or 9) if self.end else 'us'}"
        return f"ended with exit code {self.end.exit_code}"

    def last_words(self) -> str:
        """The end of its output, for a sentence: a line of text that a terminal can show; empty when there is none."""
        lines = [line for line in self._log.tail.decode(errors="replace").splitlines() if line.strip()][-_TAIL_LINES:]
        shown = _shown(" | ".join(line.strip() for line in lines))
        return f"; its last output: {shown}" if shown else ""

    def stop(self) -> None:
        """Ask it to end."""
        self._was_stopped = self.end is None
        self._sibling.init.stop()

    def kill(self) -> None:
        """End every process of it."""
        self._was_stopped = self._was_stopped or self.end is None
        self._sibling.init.kill()

    def reap(self) -> None:
        """Wait until its last process is gone; it was killed, or its main process has ended."""
        self._sibling.init.reap()

    def close(self) -> None:
        """Read what is left of its output, and what it used; once, when no process of any service lives."""
        while self.end is None:  # what init may have said before it was killed
            self.hear(self._sibling.init.end_fd)
        self._take_all()
        self._output.close()
        self._summary = self._read()

    def summary(self) -> ServiceExit:
        """How it went; after `close`."""
        assert self._summary is not None
        return self._summary

    def discard(self) -> None:
        """Nothing of it stays but its log."""
        self._sibling.discard()

    def _serves(self) -> None:
        self.is_ready = True
        self._ready_at = time.monotonic()

    def _tries(self) -> str:
        """What was tried, and why that failed, for a sentence."""
        ready = self.plan.container.ready
        if ready is None or self.is_ready:
            return ""
        return f": {ready.describe()}: {self._tried.why if self._tried else 'no answer'}"

    def _take_all(self) -> None:
        """All that is in the pipes now, and not what somebody who still has one goes on writing."""
        for fd in self._pipes:
            left = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
            while left > 0 and (chunk := self._take(fd)):
                left -= len(chunk)

    def _take(self, fd: int) -> bytes | None:
        """A piece of what is in a pipe, into the log; empty at its end, None when there is nothing now."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return None
        if chunk:
            self._output.write(self._pipes[fd], chunk)
            if pause := self._log.gather_seconds(len(chunk)):
                time.sleep(pause)
        return chunk

    def _read(self) -> ServiceExit:
        if not self._started_at:
            return ServiceExit(self.plan.name, ServiceState.NOT_STARTED.value)
        usage, oom = self._sibling.usage(), self._sibling.oom()
        cpu = [each for each in (usage.cpu_user_seconds, usage.cpu_system_seconds) if each is not None]
        return ServiceExit(
            name=self.plan.name,
            state=self._state(oom.events).value,
            exit_code=self.end.exit_code if self.end else None,
            signal=self.end.signal if self.end else None,
            ready_seconds=self._ready_at - self._started_at if self.is_ready else None,
            oom_events=oom.events,
            cpu_seconds=sum(cpu) if cpu else None,
            memory_peak_bytes=usage.memory_peak_bytes,
            log=LogSize(self._log.bytes_of[STDOUT], self._log.bytes_of[STDERR], self._log.dropped_bytes),
        )

    def _state(self, oom_events: int) -> ServiceState:
        if oom_events and not self._was_stopped and self.end is not None and self.end.exit_code != 0:
            return ServiceState.OUT_OF_MEMORY
        if not self.is_ready:
            return ServiceState.NOT_READY
        return ServiceState.STOPPED if self._was_stopped else ServiceState.EXITED


class _TailedLog(LogWriter):
    """Remembers the end of what is written, which the masker has seen before."""

    tail = b""

    def write(self, stream: int, payload: bytes, time_ns: int | None = None) -> None:
        super().write(stream, payload, time_ns)
        self.tail = (self.tail + payload[-_TAIL_BYTES:])[-_TAIL_BYTES:]


def _masked(log: LogWriter, masker: "Masker") -> "MaskedLog":
    from dayfly.worker.masked_log import MaskedLog  # as in supervision.py

    return MaskedLog(log, masker)


def _shown(text: str) -> str:
    """The end of a text that the service chose, as a terminal may show it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[-_TAIL_SHOWN:])
