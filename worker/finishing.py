"""The end of a job told to the queue: its log stored, its outcome judged, then finished, tried again or given back."""

import dataclasses
import os
import time

import structlog

from dayfly.jobs.demand import Capacity
from dayfly.jobs.errors import StoreError
from dayfly.jobs.result import Result
from dayfly.jobs.service_result import ServiceResult
from dayfly.jobs.spec import JobSpec, Keep
from dayfly.jobs.state import Outcome
from dayfly.jobs.verdict import should_retry
from dayfly.queue.claims import Claim
from dayfly.queue.consumer import Consumer
from dayfly.worker.builds import Building
from dayfly.worker.claims import attempt_of
from dayfly.worker.logfile import LogReader
from dayfly.worker.places import Places
from dayfly.worker.reporting import built, report
from dayfly.worker.running import RunningJob
from dayfly.worker.settings import JobDefaults
from dayfly.worker.store import FileStore, service_log_id

log = structlog.get_logger()


class Finisher:
    """Tells the queue how jobs of one worker ended. Each method may raise a QueueError, and be called again then."""

    def __init__(self, consumer: Consumer, store: FileStore, places: Places, defaults: JobDefaults) -> None:
        self._defaults = defaults
        self._consumer = consumer
        self._store = store
        self._places = places

    def finish(self, job: RunningJob, free: Capacity | None) -> tuple[bool, Claim | None]:
        """Settle a job whose end is known; with `free`, claim the next one in the same round trip if it may be so.

        False: the job is not ours any more, and what we know of it interests nobody.
        """
        told = self._tell(job, free)
        if job.result is not None and job.result.kept is not None:
            self._keep(job, job.result.kept)  # before another attempt needs the place
        return told

    def finish_build(self, build: Building) -> None:
        """Settle a build that has ended."""
        warnings: list[str] = []
        location = self.keep_log(build, warnings)
        result = built(build, location, self._defaults)
        self._settle(build.claim, build.spec, dataclasses.replace(result, warnings=tuple(warnings)), None)

    def keep_log(self, build: Building, warnings: list[str] | None = None) -> str | None:
        """Put what a build has said so far into the store; where it lies."""
        return self._put_log(build.claim.job_id, build.whole_log(), "the log", [] if warnings is None else warnings)

    def _tell(self, job: RunningJob, free: Capacity | None) -> tuple[bool, Claim | None]:
        job.result = job.result or self._result(job)
        return self._settle(job.claim, job.spec, job.result, free)

    def _settle(self, claim: Claim, spec: JobSpec, result: Result, free: Capacity | None) -> tuple[bool, Claim | None]:
        """The job ends with this result, or is tried again."""
        if result.outcome is None:
            return self._consumer.requeue(claim, count_attempt=False), None
        if should_retry(spec.retry or self._defaults.retry, result.outcome, result.exit_code, claim.attempt):
            return self._consumer.requeue(claim, count_attempt=True, attempt=attempt_of(claim, result)), None
        if free is None:
            return self._consumer.finish(claim, result), None
        return self._consumer.turn(claim, result, free)

    def _result(self, job: RunningJob) -> Result:
        assert job.ending is not None  # the agent calls this for ended jobs alone
        warnings: list[str] = []
        location = self._store_log(job, warnings)
        result = report(job.record, job.spec, job.ending, location, self._defaults)
        if result.outcome is None:
            return result
        if result.services:
            result = dataclasses.replace(result, services=self._store_service_logs(job, result, warnings))
        self._hold_artifacts(job, result, warnings)
        if result.outcome is Outcome.CANCELLED:
            result = dataclasses.replace(result, reason=self._consumer.cancel_reason(job.claim))
        if _is_kept(job, result):
            result = dataclasses.replace(result, kept=self._places.kept_of(job.job_id, job.claim.attempt))
        attempts = (*job.claim.earlier, attempt_of(job.claim, result))
        return dataclasses.replace(result, attempts=attempts, warnings=(*result.warnings, *warnings))

    def _store_log(self, job: RunningJob, warnings: list[str]) -> str | None:
        return self._put_log(job.job_id, job.whole_log(), "the log", warnings)

    def _store_service_logs(self, job: RunningJob, result: Result, warnings: list[str]) -> tuple[ServiceResult, ...]:
        """The services as they are, each with the place of its log."""
        return tuple(
            dataclasses.replace(
                each,
                log=self._put_log(
                    service_log_id(job.job_id, each.name),
                    job.service_log(each.name),
                    f"the log of service {each.name}",
                    warnings,
                ),
            )
            for each in result.services
        )

    def _put_log(self, log_id: str, reader: LogReader, what: str, warnings: list[str]) -> str | None:
        try:
            return self._store.put_log(log_id, reader.frames(is_final=True))
        except StoreError as error:
            warnings.append(f"{what} is not kept: {error}")
            return None
        finally:
            reader.close()

    def _keep(self, job: RunningJob, path: str) -> None:
        try:
            os.makedirs(self._places.kept, 0o700, exist_ok=True)
            job.keep(path)
        except OSError as error:
            log.error("cannot keep", job=job.job_id, path=path, why=str(error))

    def _hold_artifacts(self, job: RunningJob, result: Result, warnings: list[str]) -> None:
        if not result.artifacts:
            return
        seconds = job.spec.artifacts.expire_in_seconds
        expires_at = None if seconds is None else time.time() + seconds
        try:
            self._store.keep(job.job_id, (each.sha256 for each in result.artifacts), expires_at)
        except StoreError as error:
            warnings.append(f"the artifacts may expire early: {error}")


def _is_kept(job: RunningJob, result: Result) -> bool:
    """Whether the job's directory outlives it (`keep`)."""
    return job.spec.keep is Keep.ALWAYS or (job.spec.keep is Keep.FAILED and not result.is_success)
