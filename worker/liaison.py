"""Everything an agent says to the queue, in one place and in one order, so that a failure is met in one place.

`deal` is called once a turn of the loop. It raises a QueueError as soon as the queue does not answer; whatever was not
said yet is still there to be said the next time: states and logs with the jobs, ends in their directories.
"""

import math
import time

import structlog

from dayfly.jobs.errors import QueueError
from dayfly.queue.boundary import contained, log_fault
from dayfly.queue.claims import Claim
from dayfly.queue.consumer import Consumer, Hold
from dayfly.queue.foreign import Intake
from dayfly.queue.logs import LogStream
from dayfly.queue.reaper import Reaper
from dayfly.worker import jobfiles, shipping
from dayfly.worker.capacity import Ledger
from dayfly.worker.claiming import Claiming
from dayfly.worker.finishing import Finisher
from dayfly.worker.record import images_of
from dayfly.worker.reporting import lost
from dayfly.worker.roster import Roster
from dayfly.worker.running import RunningJob

_HEARTBEAT_SECONDS = 60.0
_REAP_SECONDS = 1.0

log = structlog.get_logger()


class Liaison:
    """`claiming` takes new jobs, in its turn."""

    def __init__(
        self,
        consumer: Consumer,
        stream: LogStream,
        reaper: Reaper,
        intake: Intake,
        claiming: Claiming,
        finisher: Finisher,
        roster: Roster,
        ledger: Ledger,
    ) -> None:
        self._consumer = consumer
        self._stream = stream
        self._reaper = reaper
        self._intake = intake
        self._claiming = claiming
        self._finisher = finisher
        self._roster = roster
        self._ledger = ledger
        self._lease_seconds = consumer.lease_seconds
        self._is_known = False
        self._renew_at = self._beat_at = self._reap_at = 0.0
        self._taken_in: set[str] = set()
        self._discarded: list[tuple[Claim, float]] = []

    def deal(self) -> None:
        """Say what there is to say, hear what there is to hear. Raises a QueueError."""
        self._renew()
        if not self._is_known:
            self._introduce()
        self._keep_time()
        self._take_in()
        self._tell_states()
        self._ship()
        self._settle()
        self._claiming.claim()

    def forget(self) -> None:
        """The queue did not answer: what it knows of us is to be asked for when it does again."""
        self._is_known = False
        self._claiming.may_have_work = True
        for job in self._roster:
            self._roster.touched.add(job)

    def leave(self) -> None:
        """Leave RQ's list of workers. Raises a QueueError."""
        self._tell_discarded()
        self._consumer.unregister()

    def cancel_asked(self) -> None:
        """Somebody asked for the cancel of one of our jobs: the next renewal says which and how."""
        self._renew_at = 0.0

    def arrived(self, queue: str) -> None:
        """A plain RQ producer has put something into a queue."""
        self._taken_in.add(queue)

    def discarded(self, job: RunningJob) -> None:
        """Nothing of a job is left here: its record is to say when, at the next occasion."""
        if job.result is not None and job.result.outcome is not None:
            self._discarded.append((job.claim, time.time()))

    def due_at(self) -> float:
        """When to deal again though nothing happens (time.monotonic())."""
        has_jobs = len(self._roster) or self._claiming.claims
        due = min(self._renew_at if has_jobs else self._beat_at, self._beat_at, self._reap_at)
        if (claim_at := self._claiming.due_at()) is not None:
            due = min(due, claim_at)
        return min([due, *(_due_at(job) for job in self._roster.touched)])

    def _introduce(self) -> None:
        """At the start and after every silence: be known, and give back what Redis thinks we have and we have not."""
        with contained("appear among RQ's workers"):
            self._consumer.register(slots=self._ledger.slots)
        with contained("ask what this worker holds"):
            for claim in self._consumer.executions():
                if not self._roster.has(claim.execution_id) and not self._claiming.has(claim.execution_id):
                    log.warning("job given back", job=claim.job_id, why="claimed, and nothing of it is here")
                    self._claiming.give_back(claim)
        self._is_known = True
        self._renew_at = 0.0

    def _keep_time(self) -> None:
        now = time.monotonic()
        if now >= self._beat_at:
            self._beat_at = now + _HEARTBEAT_SECONDS
            with contained("say that this worker lives"):
                self._consumer.heartbeat()
        if now >= self._reap_at:
            self._reap_at = now + _REAP_SECONDS
            with contained("say what is gone from this host"):
                self._tell_discarded()
            with contained("deal with what is overdue"):
                self._reaper.tick()

    def _renew(self) -> None:
        """Before all else: whatever is wrong with other entries, the jobs that run here go on."""
        asked_at = time.monotonic()
        if asked_at < self._renew_at:
            return
        self._renew_at = asked_at + self._lease_seconds / 3
        jobs = self._roster.unsettled()
        holds = self._consumer.renew([job.claim for job in jobs] + self._claiming.claims)
        left = self._lease_seconds - (time.monotonic() - asked_at)
        self._claiming.heed(holds, left)
        for job in jobs:
            try:
                self._heed(job, holds[job.job_id], left)
            except OSError as error:  # the keeper ends the job by itself when its lease does
                log.error("host in trouble", job=job.job_id, why=f"cannot tell a keeper of its lease: {error}")

    def _heed(self, job: RunningJob, hold: Hold, seconds_left: float) -> None:
        if hold is Hold.LOST:
            log.warning("lease lost", job=job.job_id)
            job.stop("lease_lost", is_urgent=True)
        elif not job.is_gone:
            jobfiles.write_lease(job.directory, seconds_left)
            if hold is not Hold.HELD:
                job.stop("cancelled", is_urgent=hold is Hold.KILL)

    def _tell_discarded(self) -> None:
        if self._discarded:
            self._consumer.discarded(self._discarded)
            self._discarded.clear()

    def _take_in(self) -> None:
        for queue in list(self._taken_in):
            taken = 0
            with contained("look through a queue", queue=queue):
                taken = self._intake.take(queue)
            if taken == 0:
                self._taken_in.discard(queue)
            self._claiming.may_have_work = True

    def _tell_states(self) -> None:
        """Those of jobs that go on: an end that is there says more than the state before it."""
        now = time.monotonic()
        for job in self._roster.touched:
            if job.unmarked is not None and job.ending is None and now >= job.marked_at:
                with contained("say how far a job is", job=job.job_id):
                    self._consumer.mark(job.claim, job.unmarked, images_of(job.record))
                job.unmarked = None

    def _ship(self) -> None:
        due = [job for job in self._roster.touched if not job.is_settled and shipping.is_due(job)]
        if due:
            shipping.ship(due, self._stream)

    def _settle(self) -> None:
        """Tell the ends of those whose whole log has gone out, and take the next job in the same breath."""
        for job in list(self._roster.touched):
            if job.is_settled or (job.ending is None and not job.has_new_log and job.unmarked is None):
                self._roster.touched.discard(job)
            elif job.ending is None:
                continue
            elif not job.has_new_log:
                self._settle_one(job)

    def _settle_one(self, job: RunningJob) -> None:
        self._ledger.give_back(job.claim.execution_id)
        try:
            is_ours, following = self._finisher.finish(job, self._claiming.room())
        except QueueError:
            raise
        except Exception as error:  # noqa: BLE001 - logged; the other jobs are to end as they should
            is_ours, following = self._lose(job, log_fault("tell how the job ended", error, job=job.job_id)), None
        job.is_settled = True
        self._roster.touched.discard(job)
        self._log_end(job, is_ours)
        if job.ending is not None and (fault := job.ending.fault) is not None and not fault.is_jobs_own:
            self._claiming.pause(fault.message)
        if following is not None:
            self._claiming.start(following)
        else:
            self._claiming.may_have_work = True

    def _lose(self, job: RunningJob, message: str) -> bool:
        """End a job whose end cannot be told. False when it is not ours any more."""
        job.result = lost(job.claim, job.spec, message)
        with contained("tell that a job is lost", job=job.job_id):
            return self._consumer.finish(job.claim, job.result)
        return False  # not renewed any more, its lease ends

    def _log_end(self, job: RunningJob, is_ours: bool) -> None:
        outcome = job.result.outcome if job.result else None
        what = "job finished" if is_ours else "job is not ours any more"
        log.info(what, job=job.job_id, attempt=job.claim.attempt, outcome=str(outcome or "requeued"))


def _due_at(job: RunningJob) -> float:
    """When a job that was touched has something to be said of it."""
    if job.ending is not None and not job.has_new_log:
        return 0.0
    due = shipping.due_at(job) if job.has_new_log else math.inf
    return min(due, job.marked_at) if job.unmarked is not None else due
