"""Builds: jobs that this worker has claimed and that have no container, each built by a process of its own.

agent ──request──► dayfly.building.program ──► its steps: jobs in the queue, which only this worker may claim
      ◄─log, end──                              signed with a key that this agent has made, and so known again

A build holds nothing of the ledger: its steps do, one at a time. It dies with its agent, or when its lease has ended,
and is given back; what it had made is in the cache of steps. What it needs on this host lies in a directory of its own,
which goes when its process has.
"""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from dayfly.jobs.errors import HostError
from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.plain import to_plain
from dayfly.jobs.signatures import TrustedKeys
from dayfly.jobs.spec import JobSpec
from dayfly.queue.claims import Claim
from dayfly.worker.child_program import ChildProgram
from dayfly.worker.logfile import STDERR, LogReader, LogWriter
from dayfly.worker.places import Places
from dayfly.worker.settings import WorkerSettings

# By name, since it stands above this room: it puts steps into the queue, as any client does.
_PROGRAM = "dayfly.building.program"
_SECONDS_TO_LEAVE = 20.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Built:
    """How a build ended: the image's digest, or `error`, a sentence. `is_steps`: a step of the Containerfile failed;
    `is_hosts`: it is this host's fault, or the queue's; `is_late`: it took longer than its timeout."""

    digest: str | None = None
    error: str | None = None
    is_steps: bool = False
    is_hosts: bool = False
    is_late: bool = False


@dataclass(eq=False)
class Building:
    """One build; `ending` is None while it goes on. Its log is shipped as a RunningJob's (shipping.py)."""

    claim: Claim
    spec: JobSpec
    program: ChildProgram
    directory: str
    directory_fd: int
    writer: LogWriter
    log: LogReader
    end_by: float
    lease_until: float
    started_at: float
    kill_at: float = math.inf
    ending: Built | None = None
    has_pipe: bool = True
    is_gone: bool = False
    has_new_log: bool = False
    is_log_held: bool = False
    is_log_placed: bool = False
    shipped_at: float = 0.0

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to come: its process is gone, and its whole log has been shipped."""
        return self.is_gone and not self.has_new_log

    def whole_log(self) -> LogReader:
        return LogReader(self.directory_fd)


class Builds:
    """`listen` and `unlisten` are the agent's for descriptors."""

    def __init__(
        self,
        settings: WorkerSettings,
        places: Places,
        listen: Callable[[int, Callable[[], None]], None],
        unlisten: Callable[[int], object],
    ) -> None:
        self._settings = settings
        self._places = places
        self._listen = listen
        self._unlisten = unlisten
        self._key = generate(KeyKind.HMAC)
        self.signers = TrustedKeys((self._key,))
        """Whose signature steps have: nobody else has the key, and the next agent has another."""
        self._builds: dict[str, Building] = {}
        self._leaving: set[Building] = set()
        for name in os.listdir(places.build_logs):  # of an agent that is dead, and its builds with it
            places.throw_away(f"{places.build_logs}/{name}")

    def __len__(self) -> int:
        return len(self._builds)

    def __iter__(self) -> Iterator[Building]:
        return iter(list(self._builds.values()))

    def has(self, execution_id: str) -> bool:
        return execution_id in self._builds

    def begin(self, claim: Claim, spec: JobSpec, context: str | None, seconds: float | None) -> None:
        """Build, for at most so many seconds; `context` is the directory. Raises OSError."""
        log.info("build begins", job=claim.job_id)
        directory = f"{self._places.build_logs}/{claim.execution_id}"
        os.makedirs(directory, 0o700)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            program = ChildProgram(_PROGRAM, self._request(claim, context), has_log=True)
        except OSError:
            os.close(fd)
            self._places.throw_away(directory)
            raise
        now = time.monotonic()
        build = self._builds[claim.execution_id] = Building(
            claim=claim,
            spec=spec,
            program=program,
            directory=directory,
            directory_fd=fd,
            writer=LogWriter(fd, self._settings.log_limit_bytes),
            log=LogReader(fd),
            end_by=now + (math.inf if seconds is None else seconds),
            lease_until=now + self._settings.lease_seconds,
            started_at=time.time(),
        )
        self._listen(program.fd, lambda: self._hear(build))
        self._listen(program.log_fd, lambda: self._hear_log(build))

    def renewed(self, build: Building, seconds_left: float) -> None:
        """It is still ours, for so long."""
        build.lease_until = time.monotonic() + seconds_left

    def due_at(self) -> float:
        """When to `look` though nothing happens (time.monotonic())."""
        going = [min(each.end_by, each.lease_until) for each in self if each.ending is None]
        leaving = [each.kill_at for each in (*self, *self._leaving) if not each.is_gone]
        return min([*going, *leaving], default=math.inf)

    def look(self) -> None:
        """End what has taken too long, or may be another's by now."""
        now = time.monotonic()
        for build in self:
            if build.ending is None and now >= build.end_by:
                self._stop(build, Built(error="it took longer than its timeout", is_late=True))
            elif now >= build.lease_until:
                log.warning("lease lost", job=build.claim.job_id)
                self.remove(build)
        for build in (*self, *self._leaving):
            if not build.is_gone and now >= build.kill_at:
                build.program.kill()

    def remove(self, build: Building) -> None:
        """Forget a build; one that goes on is ended, and its step with it."""
        self._builds.pop(build.claim.execution_id, None)
        self._leaving.add(build)
        if build.ending is None:
            self._stop(build, Built(error="it was stopped"))
        self._discard(build)

    def _stop(self, build: Building, end: Built) -> None:
        """It cancels its step, and leaves."""
        build.ending = end
        build.kill_at = time.monotonic() + _SECONDS_TO_LEAVE
        build.program.terminate()

    def _discard(self, build: Building) -> None:
        """Once its process is gone and nobody asks for it."""
        if build.is_gone and build in self._leaving:
            self._leaving.remove(build)
            build.writer.close()
            build.log.close()
            os.close(build.directory_fd)
            self._places.throw_away(build.directory)

    def _request(self, claim: Claim, context: str | None) -> Mapping[str, Any]:
        own = self._settings
        return {
            "agent": os.getpid(),
            "home": str(own.home),
            "url": own.url,
            "worker": own.label,
            "job": claim.job_id,
            "queue": claim.queue,
            "document": claim.document,
            "context": context,
            "key": self._key.line(),
            "images": to_plain(own.images),
            "allowed": {"images": own.allow.images, "default": own.defaults.image, "all": own.is_embedded},
        }

    def _hear(self, build: Building) -> None:
        """Its stdout is readable. (In the turn of the loop that it was, so may have been its log: see below.)"""
        for fields in build.program.told():
            build.ending = build.ending or Built(**fields)
        if not build.program.is_over:
            return
        self._unlisten(build.program.fd)
        while build.has_pipe:
            self._hear_log(build)
        build.program.bury()
        build.ending = build.ending or Built(error="its process died", is_hosts=True)
        build.is_gone = True
        self._discard(build)

    def _hear_log(self, build: Building) -> None:
        if not build.has_pipe:
            return
        piece = build.program.log()
        if not piece:
            build.has_pipe = False
            self._unlisten(build.program.log_fd)
            return
        try:
            build.writer.write(STDERR, piece)
            build.has_new_log = True
        except HostError as error:
            if build.ending is None:
                self._stop(build, Built(error=str(error), is_hosts=True))
