"""A job that has a keeper, as the agent follows it: by its directory, its log and a descriptor of the keeper.

It is the same whether this agent started the job or found it running.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field

from dayfly.jobs.result import Result
from dayfly.jobs.spec import JobSpec
from dayfly.jobs.state import State
from dayfly.queue.claims import Claim
from dayfly.worker import jobfiles
from dayfly.worker.exit import NAME as EXIT
from dayfly.worker.exit import Exit
from dayfly.worker.logfile import NAME as LOG
from dayfly.worker.logfile import LogReader, service_log
from dayfly.worker.record import Record
from dayfly.worker.reporting import without_exit

_MARK_PAUSE_SECONDS = 0.01  # a job that is over before spares the queue a round trip
_MARKS = {jobfiles.RUNNING: State.RUNNING, jobfiles.COLLECTING: State.COLLECTING}


@dataclass(eq=False)
class RunningJob:
    """`pidfd` is -1 when the keeper was dead already as this agent found the job."""

    claim: Claim
    record: Record
    spec: JobSpec
    directory: str
    watch: int
    pid: int
    pidfd: int
    started_at: float = field(default_factory=time.monotonic)
    state: State = State.STARTING
    unmarked: State | None = None  # a state that the queue has not been told yet
    marked_at: float = 0.0  # when it is to be told, unless the end comes before
    has_new_log: bool = False
    is_log_held: bool = False  # the stream has no room for it until a follower has read on
    is_log_placed: bool = True  # False: the stream must be asked up to where it has the log
    shipped_at: float = 0.0
    stop_reason: str | None = None
    is_stop_urgent: bool = False
    ending: Exit | None = None
    result: Result | None = None
    is_settled: bool = False  # the queue knows the end, or wants to know nothing of it
    is_kept: bool = False  # its directory stays (`keep`), and lies where it will

    def __post_init__(self) -> None:
        self._directory_fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.log = LogReader(self._directory_fd)

    @property
    def job_id(self) -> str:
        return self.claim.job_id

    @property
    def is_gone(self) -> bool:
        """Its keeper is dead."""
        return self.pidfd < 0

    @property
    def has_run(self) -> bool:
        """Its command has begun: its container stood."""
        return self.state is not State.STARTING

    def stop(self, reason: str, is_urgent: bool) -> None:
        """Have the keeper end the job; again only to make it quicker. The first reason stands."""
        if self.ending is not None or self.is_gone or (self.stop_reason and (self.is_stop_urgent or not is_urgent)):
            return
        self.stop_reason = self.stop_reason or reason
        self.is_stop_urgent = is_urgent
        try:
            jobfiles.write_stop(self.directory, self.stop_reason, is_urgent)
            number = signal.SIGTERM
        except OSError:  # its disk is full, or its directory is gone: what it cannot be told is done to it
            number = signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            signal.pidfd_send_signal(self.pidfd, number)

    def keeper_ended(self) -> None:
        """The keeper is dead: what it has left is all there will be."""
        os.close(self.pidfd)
        self.pidfd = -1
        self.find_ending()

    def find_ending(self) -> None:
        """Read the end that the dead keeper wrote, or conclude one from what there is."""
        if self.ending is None:
            self.look()
        if self.ending is None:
            is_there = os.path.isdir(self.directory)
            self.ending = without_exit(self.state is not State.STARTING, self.stop_reason, is_there)

    def changed(self, names: set[str]) -> None:
        """Files of these names have appeared or grown."""
        for name, state in _MARKS.items():
            if name in names and self.state is not state:
                self.state = self.unmarked = state
                self.marked_at = time.monotonic() + _MARK_PAUSE_SECONDS
        if any(name.startswith(LOG) and not name.startswith("lock") for name in names):
            self.has_new_log = True
        if EXIT in names:
            self.ending = jobfiles.read_exit(self.directory)

    def look(self) -> None:
        """As if everything in the directory had just appeared."""
        self.changed(set(os.listdir(self._directory_fd)))

    def whole_log(self) -> LogReader:
        """A reader of its own over all that is kept of the log."""
        return LogReader(self._directory_fd)

    def service_log(self, service: str) -> LogReader:
        """A reader over all that is kept of a service's log."""
        return LogReader(self._directory_fd, name=service_log(service))

    def keep(self, path: str) -> None:
        """Move the directory to where it stays; its keeper, if it still tidies up, works through a descriptor."""
        os.rename(self.directory, path)
        self.directory = path
        self.is_kept = True

    def discard(self) -> bool:
        """Delete the directory, by its descriptor: at its path a later attempt of the job may lie by now.

        False when something is left at the path that is still this job's.
        """
        is_deleted = jobfiles.discard(self.directory, self._directory_fd)
        self.close()
        return is_deleted

    def close(self) -> None:
        """Let go of every descriptor; the directory stays."""
        self.log.close()
        for fd in (self._directory_fd, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self._directory_fd = self.pidfd = -1
