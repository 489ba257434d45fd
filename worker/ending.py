"""The end of a job: what it used, what the kernel did to it, its artifacts; written down as exit.json.

Readings only; what they mean is `jobs/verdict.py`'s. Everything here must hold for a job that was killed at any moment.
"""

import os
import time
from contextlib import ExitStack
from dataclasses import asdict

from dayfly.runtime.container import Container
from dayfly.runtime.directory_disk import UNLIMITED, DirectoryDisk
from dayfly.runtime.init_process import End
from dayfly.worker import artifacts, jobfiles
from dayfly.worker.exit import Disk, LogSize, Oom, Timings, Usage
from dayfly.worker.jobdir import JobDirectory
from dayfly.worker.logfile import STDERR, STDOUT
from dayfly.worker.record import Record
from dayfly.worker.supervision import Outcome

_COLLECT_SECONDS = 600.0
_BIGGEST = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Ending:
    """Writes exit.json of one job; `image_ready_at` is when its container stood ready."""

    def __init__(self, container: Container, record: Record, directory: JobDirectory, image_ready_at: float) -> None:
        self._container = container
        self._record = record
        self._directory = directory
        self._image_ready_at = image_ready_at

    def write(self, outcome: Outcome) -> None:
        """Gather everything and write it down; from then on the job has ended for the agent."""
        disk = self._disk()
        collected = self._collect(outcome)
        usage = self._usage(disk, outcome.end)
        self._directory.write_exit(
            cause=outcome.cause,
            exit_code=outcome.end.exit_code,
            signal=outcome.end.signal,
            spawn_errno=outcome.spawn_errno,
            message=outcome.message,
            timings=self._timings(outcome),
            usage=usage,
            samples=tuple(outcome.samples.rows),
            oom=self._oom(usage),
            disk=disk,
            pressure=self._container.pressure(),
            warnings=(*self._notes(), *collected.warnings),
            artifacts=collected.artifacts,
            log=self._log_size(outcome),
            effective=asdict(self._container.effective),
        )

    def _notes(self) -> tuple[str, ...]:
        """What the result should say of the container."""
        is_unlimited = isinstance(self._container.disk, DirectoryDisk)
        return (*self._container.init.notes, UNLIMITED) if is_unlimited else self._container.init.notes

    def _timings(self, outcome: Outcome) -> Timings:
        return Timings(self._image_ready_at, outcome.started_at, outcome.finished_at, time.time())

    def _usage(self, disk: Disk, end: End) -> Usage:
        reading = self._container.usage()
        return Usage(
            cpu_user_seconds=reading.cpu_user_seconds,
            cpu_system_seconds=reading.cpu_system_seconds,
            cpu_throttled_seconds=reading.cpu_throttled_seconds,
            memory_peak_bytes=reading.memory_peak_bytes,
            io_read_bytes=end.io_read_bytes if reading.io_read_bytes is None else reading.io_read_bytes,
            io_written_bytes=end.io_written_bytes if reading.io_written_bytes is None else reading.io_written_bytes,
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
        return Disk(True, disk.used_bytes(), disk.size_bytes, tuple(disk.biggest(_BIGGEST, self._shown_as())))

    def _shown_as(self) -> dict[str, str]:
        """Where the disk's directories are in the job's eyes."""
        trees = enumerate(self._container.shape.host_trees)
        return {"workspace/upper": "/workspace", "root/upper": "", **{f"trees/{i}/upper": tree for i, tree in trees}}

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
        rules, disk = self._record.artifacts, self._container.disk
        is_ours = outcome.cause in ("requeued", "lease_lost")  # another attempt will have its own
        if rules is None or is_ours or not rules.is_due(outcome.end.exit_code):
            return artifacts.Collected((), ())
        self._container.init.reap()
        self._directory.mark(jobfiles.COLLECTING)
        with ExitStack() as stack:
            trees = [self._tree(stack, disk.mount_fd, path, shown) for path, shown in self._shown_as().items()]
            try:
                return artifacts.collect(rules, trees, self._record.store, time.monotonic() + _COLLECT_SECONDS)
            except OSError as error:
                why = f"artifacts: cannot be stored in {self._record.store}: {error.strerror}"
                return artifacts.Collected((), (why,))

    def _tree(self, stack: ExitStack, disk_fd: int, path: str, shown: str) -> artifacts.Tree:
        upper = os.open(path, _DIRECTORY | os.O_NOFOLLOW, dir_fd=disk_fd)
        stack.callback(os.close, upper)
        workspace = self._record.container.workspace
        if shown != "/workspace" or workspace is None:
            return artifacts.Tree(shown or "/", upper)
        lower = os.open(workspace.source, _DIRECTORY)
        stack.callback(os.close, lower)
        return artifacts.Tree(shown, upper, lower)
