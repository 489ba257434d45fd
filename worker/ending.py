"""The end of a job: what it used, what the kernel did to it, its artifacts; written down as exit.json.

Readings only; what they mean is `jobs/verdict.py`'s. Everything here must hold for a job that was killed at any moment.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from dayfly.jobs.errors import HostError
from dayfly.runtime.container import Container
from dayfly.runtime.directory_disk import DirectoryDisk
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.init_process import End
from dayfly.runtime.inputs import NAME_LOOKUP
from dayfly.runtime.operations import remedy_for
from dayfly.runtime.shape import Workspace, fields_of
from dayfly.runtime.sibling import directory_of
from dayfly.runtime.view import View
from dayfly.runtime.workspace import is_overlaid, open_given
from dayfly.worker import artifacts, jobfiles
from dayfly.worker.exit import Disk, Fault, LogSize, Network, Oom, Timings, Usage
from dayfly.worker.jobdir import JobDirectory
from dayfly.worker.logfile import STDERR, STDOUT
from dayfly.worker.record import Record
from dayfly.worker.services import NOT_READY, Services
from dayfly.worker.stop_requests import StopRequests
from dayfly.worker.supervision import Outcome

if TYPE_CHECKING:
    from dayfly.worker.masking import Masker

_Number = TypeVar("_Number", int, float)
_COLLECT_SECONDS = 600.0
_BIGGEST = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Another attempt will have artifacts of its own; and of a command that never ran there are none.
_NOTHING_TO_COLLECT = ("requeued", "lease_lost", "fault", NOT_READY)
_STOPS = ("cancelled", "requeued", "lease_lost")


class Ending:
    """Writes exit.json of one job; `image_ready_at` is when its container stood ready."""

    def __init__(
        self,
        container: Container,
        record: Record,
        directory: JobDirectory,
        stops: StopRequests,
        masker: "Masker | None",
        image_ready_at: float,
    ) -> None:
        self._container = container
        self._record = record
        self._directory = directory
        self._stops = stops
        self._masker = masker
        self._cause = ""
        self._image_ready_at = image_ready_at

    def write(self, outcome: Outcome, services: Services | None = None) -> None:
        """Gather everything and write it down; from then on the job has ended for the agent.

        `services` have ended before.
        """
        self._cause = outcome.cause
        disk = self._disk()
        fault = self._fault()
        collected = self._collect(outcome)
        network, unread = self._network()
        usage = self._usage(disk, outcome.end)
        facts: dict[str, Any] = {
            "cause": self._cause,
            "exit_code": outcome.end.exit_code,
            "signal": outcome.end.signal,
            "spawn_errno": outcome.spawn_errno,
            "fault": fault,
            "message": outcome.message,
            "timings": self._timings(outcome),
            "usage": usage,
            "samples": tuple(outcome.samples.rows),
            "oom": self._oom(usage),
            "disk": disk,
            "network": network,
            "pressure": self._container.pressure(),
            "warnings": (
                *self._container.notes,
                *unread,
                *_warnings(services),
                *collected.warnings,
                *self._keep(outcome.end),
            ),
            "artifacts": collected.artifacts,
            "log": self._log_size(outcome),
            "services": () if services is None else services.summaries(),
            "effective": fields_of(self._container.effective),
        }
        if self._masker is not None:
            from dayfly.worker.masked_exit import without_secrets  # lean: most jobs have no secrets

            facts = without_secrets(facts, self._masker)
        try:
            self._directory.write_exit(**facts)
        except HostError as error:
            self._directory.write_exit(**_shortened(facts, error))

    def _timings(self, outcome: Outcome) -> Timings:
        return Timings(self._image_ready_at, outcome.started_at, outcome.finished_at, time.time())

    def _usage(self, disk: Disk, end: End) -> Usage:
        reading = self._container.usage()
        return Usage(
            cpu_user_seconds=_first(reading.cpu_user_seconds, end.cpu_user_seconds),
            cpu_system_seconds=_first(reading.cpu_system_seconds, end.cpu_system_seconds),
            cpu_throttled_seconds=reading.cpu_throttled_seconds,
            memory_peak_bytes=reading.memory_peak_bytes,
            io_read_bytes=_first(reading.io_read_bytes, end.io_read_bytes),
            io_written_bytes=_first(reading.io_written_bytes, end.io_written_bytes),
            pids_peak=reading.pids_peak,
            disk_used_bytes=disk.used_bytes,
        )

    def _disk(self) -> Disk:
        disk = self._container.disk
        if isinstance(disk, DirectoryDisk):
            return Disk(False, None, None)
        disk.look()
        if not disk.was_full():
            return Disk(False, disk.used_bytes(), disk.size_bytes)
        return Disk(
            True,
            disk.used_bytes(),
            disk.size_bytes,
            tuple(disk.biggest(_BIGGEST, self._shown_as() | self._services_shown_as())),
        )

    def _fault(self) -> Fault | None:
        """A host that lost what the job wrote has failed it, whatever the job made of that."""
        disk = self._container.disk
        if self._cause != "exited" or isinstance(disk, DirectoryDisk) or not disk.has_lost_writes():
            return None
        self._cause = "fault"
        full = OSError(errno.ENOSPC, "")
        home = os.path.dirname(os.path.dirname(self._directory.path))
        return Fault.of(HostError("hold what the job wrote, in", home, full.errno, remedy_for(full)))

    def _network(self) -> tuple[Network | None, tuple[str, ...]]:
        """What the policy refused to the job, and what the result should say where that cannot be read."""
        wire = self._container.wire
        if wire is None:
            return None, ()
        try:
            refused = wire.refused()
        except OSError as error:
            why = f"what the network's policy refused is not known: {error.strerror}"
            return Network(wire.address4, wire.address6), (why,)
        if refused is None:
            return Network(wire.address4, wire.address6), ()
        return Network(wire.address4, wire.address6, refused.connections, refused.targets), ()

    def _is_success(self, end: End) -> bool:
        """A job that was stopped is none, though its command may have left with 0."""
        return self._cause == "exited" and end.exit_code == 0

    def _keep(self, end: End) -> tuple[str, ...]:
        """Give the disk a name in the job's directory, when the job wants it kept; what the result should say of it."""
        wanted = self._record.document.get("keep", "never")
        if self._cause == "requeued" or wanted == "never" or (wanted == "failed" and self._is_success(end)):
            return ()
        try:
            self._container.disk.keep(self._directory.fd, jobfiles.DISK)
        except OSError as error:
            return (f"the job's disk is not kept: {error.strerror}",)
        return ()

    def _shown_as(self) -> dict[str, str]:
        """Where the disk's directories are in the job's eyes."""
        trees = enumerate(self._container.shape.host_trees)
        return {"workspace/upper": "/workspace", "root/upper": "", **{f"trees/{i}/upper": tree for i, tree in trees}}

    def _services_shown_as(self) -> dict[str, str]:
        """The same of its services, on the same disk: a path there begins with the service's name."""
        shown: dict[str, str] = {}
        for service in self._record.services:
            own, trees = directory_of(service.name), enumerate(service.container.shape.host_trees)
            shown[f"{own}/workspace/upper"] = f"{service.name}:/workspace"
            shown[f"{own}/root/upper"] = f"{service.name}:"
            shown |= {f"{own}/trees/{index}/upper": f"{service.name}:{tree}" for index, tree in trees}
        return shown

    def _oom(self, usage: Usage) -> Oom | None:
        reading = self._container.oom()
        if not reading.events:
            return None
        limit = self._container.shape.quotas.memory_bytes
        return Oom(reading.events, reading.victims, limit, usage.memory_peak_bytes)

    def _log_size(self, outcome: Outcome) -> LogSize:
        log = outcome.log
        return LogSize(log.bytes_of[STDOUT], log.bytes_of[STDERR], log.dropped_bytes)

    def _collect(self, outcome: Outcome) -> artifacts.Collected:
        """The job's artifacts, now that nothing of it moves any more (CVE-2018-15664)."""
        rules = self._record.artifacts
        if rules is None or self._cause in _NOTHING_TO_COLLECT or not rules.is_due(self._is_success(outcome.end)):
            return artifacts.Collected((), ())
        self._container.init.reap()
        self._directory.mark(jobfiles.COLLECTING)
        warnings: list[str] = []
        with ExitStack() as stack:
            trees = list(self._trees(stack, warnings))
            rules = replace(rules, exclude=(*rules.exclude, *self._given_names()))
            reason_to_stop = self._reason_to_stop(time.monotonic() + _COLLECT_SECONDS)
            found = artifacts.collect(rules, trees, self._record.store, reason_to_stop, self._masker)
        if self._cause in _NOTHING_TO_COLLECT:
            return artifacts.Collected((), ())
        return artifacts.Collected(found.artifacts, (*warnings, *found.warnings))

    def _reason_to_stop(self, deadline: float) -> Callable[[], str | None]:
        """Why collecting should end early: its time is over, or a stop has come, which is the job's end from then on.

        The first stop stands, as it does while the job runs; but a cancel beats a timeout.
        """

        def reason() -> str | None:
            if time.monotonic() > deadline:
                return "the time for collecting is over"
            stop = self._stops.look()
            if stop is None:
                return None
            if self._cause not in _STOPS:
                self._cause = stop.cause
            return f"the job was {stop.cause}"

        return reason

    def _given_names(self) -> tuple[str, ...]:
        """Files that the job was given to look up names: their mount points in the upper are not what it wrote."""
        has_names = self._container.shape.network != "none" or bool(self._record.services)
        return tuple(path.replace(".", r"\.") + r"\Z" for path in NAME_LOOKUP) if has_names else ()

    def _trees(self, stack: ExitStack, warnings: list[str]) -> Iterator[artifacts.Tree]:
        for path, shown in self._shown_as().items():
            upper = _open_below(stack, path, self._container.disk.mount_fd, warnings)
            workspace = self._record.container.workspace
            if upper is None:
                continue
            if shown != "/workspace" or workspace is None:
                yield artifacts.Tree(shown or "/", upper)
            else:
                yield self._workspace(stack, upper, workspace, warnings)

    def _workspace(self, stack: ExitStack, upper: int, workspace: Workspace, warnings: list[str]) -> artifacts.Tree:
        """What the job wrote over the directory that it was given, whose owner may have changed it meanwhile."""
        if not is_overlaid(self._container.disk.mount_fd):
            return artifacts.Tree("/workspace", upper)
        try:
            given = open_given(workspace)
            stack.callback(os.close, given)
            lower = os.open(".", _DIRECTORY, dir_fd=given)
            stack.callback(os.close, lower)
        except (OSError, HostError) as error:
            reason = error.reason if isinstance(error, HostError) else error.strerror
            warnings.append(f"artifacts in {workspace.source} left out: {reason}")
            return artifacts.Tree("/workspace", upper)
        view = None if own_id_map() is not None else View.of(os.fstat(lower), workspace.own_group)
        return artifacts.Tree("/workspace", upper, lower, view)


def _open_below(stack: ExitStack, path: str, disk_fd: int, warnings: list[str]) -> int | None:
    """A directory to collect from; where it cannot be opened the others still count."""
    try:
        fd = os.open(path, _DIRECTORY | os.O_NOFOLLOW, dir_fd=disk_fd)
    except OSError as error:
        warnings.append(f"artifacts in {path} left out: {error.strerror}")
        return None
    stack.callback(os.close, fd)
    return fd


def _first(*readings: _Number | None) -> _Number | None:
    """The first that there is: of the control group, or of the processes that were reaped."""
    return next((each for each in readings if each is not None), None)


def _warnings(services: Services | None) -> tuple[str, ...]:
    return () if services is None else tuple(services.warnings())


def _shortened(facts: dict[str, Any], error: HostError) -> dict[str, Any]:
    """How the job ended, in what there always is room for (jobdir.py), and what is missing of the rest."""
    artifacts_lost = f"{len(facts['artifacts'])} artifacts, " if facts["artifacts"] else ""
    services_lost = "services, " if facts["services"] else ""
    why = f"the worker {error}: {artifacts_lost}{services_lost}samples and warnings are missing in this result"
    oom = facts["oom"] and replace(facts["oom"], victims=())
    disk = replace(facts["disk"], biggest=())
    rest = {"samples": (), "artifacts": (), "services": ()}
    return {**facts, **rest, "oom": oom, "disk": disk, "warnings": (why,)}
