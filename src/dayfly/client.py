"""The Python API: submit jobs and wait for them. Synchronous; every method may raise a QueueError."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dayfly.address import find_address
from dayfly.companion import Companion
from dayfly.config import home_directory, load, store_directory
from dayfly.directory import placed
from dayfly.doubt import doubt_of
from dayfly.home import named, remember_last
from dayfly.job import Job
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import DayflyError, QueueError, SpecError
from dayfly.jobs.spec import JobSpec, PullPolicy
from dayfly.pinning import pinned
from dayfly.queue.connection import connect
from dayfly.queue.logs import GAP, LogCursor, LogLine, LogStream
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records
from dayfly.queue.serving import servers_of
from dayfly.signing import signing as configured_signing

if TYPE_CHECKING:
    from types import TracebackType

    from dayfly.client_secrets import Secrets
    from dayfly.jobs.result import Result
    from dayfly.jobs.signatures import Signing
    from dayfly.worker.store import FileStore


class Client:
    """A connection to one Redis: `url`, else DAYFLY_URL, DAYFLY_REDIS_URL, the configuration, the embedded stack."""

    def __init__(self, url: str | None = None, *, signing: Callable[[], Signing | None] | None = None) -> None:
        """`signing` gives what jobs are signed with, in place of what the configuration says."""
        self._settings = load({"client.url": url})
        self.home = home_directory(self._settings)
        self.address = find_address(self._settings)
        if self.address.stack is not None:
            self.address.stack.ensure()
        self._redis = connect(self.address.url)
        self._signing = functools.cache(signing or functools.partial(configured_signing, self._settings))
        self.producer = Producer(self._redis, self._signing)
        self.records = Records(self._redis)
        self.log_stream = LogStream(self._redis)

    def submit(self, spec: JobSpec | Mapping[str, Any] | None = None, /, **fields: Any) -> Job:
        """Put one job into its queue. A directory that is only named is frozen first. Raises SpecError."""
        return self.enqueue(_read(spec, fields, freeze_below=self.home))

    def submit_many(self, specs: Iterable[JobSpec | Mapping[str, Any]]) -> list[Job]:
        """Put many jobs into their queues in pipelined round trips. All are read before the first one is sent."""
        known: dict[str, str] = {}
        read = [self._pinned(_read(spec, {}, freeze_below=self.home), known) for spec in specs]
        ids = self.producer.submit_many(read)
        if ids:
            remember_last(ids[-1])
        return [Job(self, job_id) for job_id in ids]

    def run(self, spec: JobSpec | Mapping[str, Any] | None = None, /, *, check: bool = False, **fields: Any) -> Result:
        """Run one job and wait for its end; `dir` is mounted live. `check` raises JobFailed as subprocess.run does.

        While it waits this process keeps the job alive: without it the job is cancelled after 30 seconds. Whatever
        interrupts the wait (Ctrl-C) cancels the job.
        """
        job = self.enqueue(_read(spec, fields), is_leased=True)
        result = self._wait_beside(job)
        if check:
            result.check()
        return result

    def job(self, job_id: str) -> Job:
        """A job by its id, a unique prefix of it, or `@last`. Raises JobNotFound, AmbiguousId."""
        return Job(self, self.find(job_id))

    def enqueue(self, spec: JobSpec, *, is_leased: bool = False) -> Job:
        """Put a job that has been read into its queue, and make it `@last`."""
        job_id = self.producer.submit(self._pinned(spec, {}), client_lease=is_leased)
        remember_last(job_id)
        return Job(self, job_id)

    def find(self, text: str) -> str:
        """The whole id of what people call a job. Raises JobNotFound, AmbiguousId."""
        return self.records.find(named(text))

    def doubt_of(self, spec: JobSpec) -> str | None:
        """Why the job may wait for ever, as far as one can tell now; None when a worker is there that could take it."""
        servers = servers_of(self._redis, spec.queue)
        if self.address.stack is not None and not servers:
            return None  # the embedded worker is still starting
        return doubt_of(spec, servers)

    def await_end(self, job_id: str, timeout: float | None) -> Result:
        """The result of a job, once it is finished. Raises TimeoutError."""
        result = self.records.get(job_id).result
        if result.is_finished:
            return result
        with Companion(self.producer, [job_id]):
            return self.records.wait([job_id], timeout)[0].result

    def log_of(self, job_id: str, *, follow: bool, cursor: LogCursor | None = None) -> Iterator[LogLine]:
        """A finished job's log from the store where it is here, else from Redis; raises JobNotFound.

        What was begun in Redis goes on there: only its own positions tell exactly what `cursor` has had.
        """
        cursor = cursor or LogCursor()
        is_over = self.records.get(job_id).result.is_finished
        if is_over and not cursor.reader.has_begun and self.store().log_path(job_id).exists():
            return self._stored(job_id, cursor)
        return self._followed(job_id, cursor) if follow else self.log_stream.read(job_id, cursor)

    @functools.cached_property
    def secrets(self) -> Secrets:
        """Secrets that jobs may have: `set`, `ls`, `rm`."""
        from dayfly.client_secrets import Secrets

        return Secrets(self._redis, self._settings, self._signing, is_embedded=self.address.stack is not None)

    def store(self) -> FileStore:
        """The store of logs and artifacts, as far as it is on this host."""
        from dayfly.worker.store import FileStore

        return FileStore(store_directory(self._settings))

    def close(self) -> None:
        self._redis.close()
        if self.address.stack is not None:
            self.address.stack.release()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _pinned(self, spec: JobSpec, known: dict[str, str]) -> JobSpec:
        policy = spec.pull or self._settings.text("images.pull")
        if self.address.stack is None or policy == PullPolicy.ALWAYS:
            return spec
        return pinned(spec, self.home, known)

    def _followed(self, job_id: str, cursor: LogCursor) -> Iterator[LogLine]:
        """The live log; what a reader that stood still has missed comes from the store at the end, if that is here."""
        given = 0
        is_whole = not cursor.reader.has_begun
        for line in self.log_stream.follow(job_id, cursor):
            if line.stream == GAP and is_whole and (rest := self._rest(job_id, given)) is not None:
                yield from rest
                return
            is_whole = is_whole and line.stream != GAP
            given += len(line.data)
            yield line

    def _rest(self, job_id: str, given: int) -> Iterator[LogLine] | None:
        """The log of a job behind its first `given` bytes, when it has ended; None when the store cannot tell."""
        log = self.await_end(job_id, None).log
        if log.dropped_bytes or not self.store().log_path(job_id).exists():
            return None
        return _behind(given, self._stored(job_id, LogCursor()))

    def _stored(self, job_id: str, cursor: LogCursor) -> Iterator[LogLine]:
        for frame in islice(self.store().read_log(job_id), cursor.stored, None):
            cursor.stored += 1
            yield LogLine(frame.time_ns / 1e9, frame.stream, frame.payload)

    def _wait_beside(self, job: Job) -> Result:
        """Wait for `job` with a companion; an exception on the way (Ctrl-C, a dead stack) cancels it."""
        failures: list[DayflyError] = []
        stack = self.address.stack
        try:
            with Companion(self.producer, [job.id], stack=stack, is_leased=True, failed=failures.append):
                while True:
                    try:
                        return self.records.wait([job.id], None if stack is None else 1.0)[0].result
                    except TimeoutError:
                        if failures:
                            raise failures[0] from None
        except BaseException:
            with contextlib.suppress(QueueError):  # the first error is the one to tell
                job.cancel()
            raise


def submit(spec: JobSpec | Mapping[str, Any] | None = None, /, **fields: Any) -> Job:
    """`Client.submit` of the default client."""
    return _default().submit(spec, **fields)


def run(spec: JobSpec | Mapping[str, Any] | None = None, /, *, check: bool = False, **fields: Any) -> Result:
    """`Client.run` of the default client."""
    return _default().run(spec, check=check, **fields)


def as_completed(jobs: Iterable[Job], timeout: float | None = None) -> Iterator[Job]:
    """Each job once, as it finishes. Raises TimeoutError when not all have within `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    waiting: dict[Client, dict[str, Job]] = {}
    for job in jobs:
        waiting.setdefault(job.client, {})[job.id] = job
    # One client after the other: nearly always there is one.
    for client, by_id in waiting.items():
        with Companion(client.producer, list(by_id)):
            for job_id in client.records.finished(by_id, deadline):
                yield by_id[job_id]


@functools.cache
def _default() -> Client:
    """The client of the functions above; it lives as long as the process."""
    return Client()


def _behind(given: int, lines: Iterable[LogLine]) -> Iterator[LogLine]:
    for line in lines:
        if given < len(line.data):
            yield replace(line, data=line.data[given:])
        given = max(0, given - len(line.data))


def _read(
    spec: JobSpec | Mapping[str, Any] | None, fields: Mapping[str, Any], *, freeze_below: Path | None = None
) -> JobSpec:
    """One job from what the caller gave, its directory live or frozen. Raises SpecError."""
    return read_job(placed({**_document(spec), **fields}, freeze_below=freeze_below))


def _document(spec: JobSpec | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if spec is None:
        return {}
    if not isinstance(spec, JobSpec):
        return spec
    try:
        return spec.to_document()
    except (AttributeError, TypeError, ValueError) as error:
        raise SpecError("", f"cannot be made of this JobSpec, which has a value of a wrong type: {error}") from error
