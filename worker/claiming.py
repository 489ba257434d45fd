"""Taking jobs: claimed from the queue, then started, rejected, or left to wait for their images.

claim ──► started ──► …                      what takes no slot is dealt with in turns, so that leases, cancels and
  │ ├───► rejected                           logs have theirs
  │ └───► built, without a container (builds.py) ──► finished
  └─────► waits for images ──► started, or rejected with the reason of the registry
"""

import time
from collections.abc import Callable, Collection, Mapping

import structlog

from dayfly.jobs.build import BUILDS_LABEL
from dayfly.jobs.demand import Capacity
from dayfly.jobs.errors import QueueError
from dayfly.jobs.state import State
from dayfly.queue.boundary import contained, log_fault
from dayfly.queue.claims import Claim
from dayfly.queue.consumer import Consumer, Hold
from dayfly.queue.logs import LogStream
from dayfly.worker import shipping
from dayfly.worker.builds import Building, Builds
from dayfly.worker.capacity import Ledger
from dayfly.worker.finishing import Finisher
from dayfly.worker.pulls import News
from dayfly.worker.reporting import lost, refused
from dayfly.worker.running import RunningJob
from dayfly.worker.starting import BuildWanted, ImagesMissing, Rejected, Starter
from dayfly.worker.waiting import Waiting, WaitingRoom

_UNHEALTHY_SECONDS = 5.0
_CLAIMING_SECONDS = 0.2  # then leases, cancels and logs have their turn: what is rejected at once takes no slot

log = structlog.get_logger()


class Claiming:
    """`can_start` says whether a keeper stands ready and new jobs are wanted; `started` hears of each new job; `pull`
    is asked for an image, and whether what is here of it does not count."""

    def __init__(
        self,
        consumer: Consumer,
        stream: LogStream,
        starter: Starter,
        ledger: Ledger,
        can_start: Callable[[], bool],
        started: Callable[[RunningJob], None],
        pull: Callable[[str, bool], None],
        builds: Builds,
        finisher: Finisher,
    ) -> None:
        self._consumer = consumer
        self._stream = stream
        self._starter = starter
        self._ledger = ledger
        self._can_start = can_start
        self._started = started
        self._pull = pull
        self._builds = builds
        self._finisher = finisher
        self._start_again_at = 0.0
        self._is_interrupted = False
        self.waiting = WaitingRoom()
        """Jobs whose images are on their way."""
        self.may_have_work = True
        """Whether a claim could find something: set by a wake, cleared by an empty answer."""

    def due_at(self) -> float | None:
        """When to claim again though nothing happens (time.monotonic()); None: not before something does."""
        is_due = self.may_have_work and (self._start_again_at or self._is_interrupted)
        due = [self._start_again_at] if is_due else []
        due += [shipping.due_at(build) for build in self._builds if build.has_new_log]
        due += [0.0 for build in self._builds if build.is_over]
        due += [0.0 for waiting in self.waiting if waiting.note is not None]
        return min(due, default=None)

    @property
    def claims(self) -> list[Claim]:
        """Those of jobs that are ours and have no keeper: they wait for images, or are built."""
        return [each.claim for each in (*self.waiting, *self._builds)]

    def has(self, execution_id: str) -> bool:
        """Whether that is one of `claims`."""
        return self.waiting.has(execution_id) or self._builds.has(execution_id)

    def room(self) -> Capacity | None:
        """What a further job may take; None when none is wanted now."""
        if time.monotonic() < self._start_again_at or not self._can_start():
            return None
        return self._ledger.free

    def claim(self) -> None:
        """Take jobs while there are any, and room; those that waited for their images first. Raises a QueueError."""
        self._say()
        self._start_waiting()
        self._end_builds()
        self._keep_to_slots()
        until = time.monotonic() + _CLAIMING_SECONDS
        self._is_interrupted = False
        while self.may_have_work and not self._is_interrupted and (room := self.room()) is not None:
            claim = None
            with contained("claim a job"):
                claim = self._consumer.claim(room)
            if claim is None:
                self.may_have_work = False
            else:
                self.start(claim)
            self._is_interrupted = self.may_have_work and time.monotonic() > until

    def start(self, claim: Claim, pulled: Collection[str] = ()) -> None:
        """Have a job started that is ours now; what nobody foresaw rejects it. Raises a QueueError."""
        try:
            self._start_or_reject(claim, pulled)
        except QueueError:
            raise
        except Exception as error:  # noqa: BLE001 - logged; the job is rejected, or the next worker would meet the same
            message = log_fault("start the job", error, job=claim.job_id)
            with contained("reject a job", job=claim.job_id):
                self._consumer.finish(claim, refused(claim, None, message, None))

    def give_back(self, claim: Claim) -> None:
        """Nothing was done of it: it is the next worker's."""
        with contained("give a job back", job=claim.job_id):
            self._consumer.requeue(claim, count_attempt=False)

    def pause(self, why: str) -> None:
        """This host is in trouble: leave the next jobs to others for a while, then try again."""
        log.error("host in trouble", why=why, pause_seconds=_UNHEALTHY_SECONDS)
        self._start_again_at = time.monotonic() + _UNHEALTHY_SECONDS
        self.may_have_work = True

    def heard(self, news: News) -> None:
        """How far a pull is. What is to be said of it is said in the next turn."""
        for waiting in self.waiting.for_image(news.reference):
            waiting.hear(news)

    def heed(self, holds: Mapping[str, Hold], seconds_left: float) -> None:
        """How the claims of those without a keeper stand: one that was cancelled, or is another's, is sent away."""
        for waiting in self.waiting:
            if holds[waiting.claim.job_id] is not Hold.HELD:
                self._send_away(waiting)
        for build in self._builds:
            if holds[build.claim.job_id] is Hold.HELD:
                self._builds.renewed(build, seconds_left)
            else:
                self._stop_building(build)

    def send_all_away(self) -> None:
        """This worker takes no more jobs. Raises a QueueError."""
        for waiting in self.waiting:
            self._send_away(waiting)
        for build in self._builds:
            self._stop_building(build)

    def _start_or_reject(self, claim: Claim, pulled: Collection[str]) -> None:
        try:
            job = self._starter.start(claim, self._consumer.lease_seconds, pulled)
        except Rejected as rejection:
            log.info("job rejected", job=claim.job_id, why=str(rejection))
            self._consumer.finish(claim, refused(claim, rejection.spec, str(rejection), rejection.word))
        except ImagesMissing as missing:
            self._await_images(claim, missing)
        except BuildWanted as wanted:
            self._build(claim, wanted)
        except OSError as error:
            self.pause(f"cannot start a job: {error}")
            self.give_back(claim)
        else:
            if job is None:
                self.give_back(claim)
            else:
                self._started(job)

    def _await_images(self, claim: Claim, missing: ImagesMissing) -> None:
        self._ledger.take(claim.execution_id, self._starter.need(missing.spec))
        waiting = self.waiting.add(claim, missing.spec, missing.references)
        try:
            for reference in missing.references:
                self._pull(reference, missing.is_fresh)
        except OSError as error:
            self.pause(f"cannot start a pull: {error}")
            self._send_away(waiting)

    def _start_waiting(self) -> None:
        """Those whose images have come, or will not."""
        for waiting in self.waiting:
            if waiting.error is not None:
                self._leave(waiting)
                log.info("job rejected", job=waiting.claim.job_id, why=waiting.error)
                self._consumer.finish(waiting.claim, refused(waiting.claim, waiting.spec, waiting.error, None))
            elif not waiting.missing and self._can_start():
                self._leave(waiting)
                self.start(waiting.claim, waiting.pulled)

    def _build(self, claim: Claim, wanted: BuildWanted) -> None:
        try:
            self._builds.begin(claim, wanted.spec, wanted.context, wanted.seconds)
        except OSError as error:
            self.pause(f"cannot start a build: {error}")
            self.give_back(claim)
            return
        self._keep_to_slots()
        self._consumer.mark(claim, State.RUNNING)

    def _say(self) -> None:
        """How far pulls are, and what builds have written."""
        for waiting in self.waiting:
            if waiting.note is not None:
                with contained("say how far a pull is", job=waiting.claim.job_id):
                    self._stream.append(waiting.claim, [waiting.note])
                waiting.note = None
        due = [build for build in self._builds if shipping.is_due(build)]
        if due:
            shipping.ship(due, self._stream)

    def _end_builds(self) -> None:
        """Tell of those that have ended. Raises a QueueError."""
        for build in self._builds:
            if build.is_over:
                self._end_build(build)
                self._builds.remove(build)

    def _end_build(self, build: Building) -> None:
        try:
            self._finisher.finish_build(build)
        except QueueError:
            raise
        except Exception as error:  # noqa: BLE001 - logged; the other jobs are to end as they should
            message = log_fault("tell how the build ended", error, job=build.claim.job_id)
            with contained("tell that a build is lost", job=build.claim.job_id):
                self._consumer.finish(build.claim, lost(build.claim, build.spec, message))

    def _stop_building(self, build: Building) -> None:
        """As one that waits: back into the queue; what it has said so far is kept."""
        with contained("keep a build's log", job=build.claim.job_id):
            self._finisher.keep_log(build)
        self._builds.remove(build)
        self.give_back(build.claim)

    def _keep_to_slots(self) -> None:
        """A build takes no slot, its steps do: so no more of them at a time than there are slots."""
        is_enough = len(self._builds) >= self._ledger.slots
        if self._consumer.ask_without(BUILDS_LABEL if is_enough else None) and not is_enough:
            self.may_have_work = True

    def _leave(self, waiting: Waiting) -> None:
        self.waiting.remove(waiting)
        self._ledger.give_back(waiting.claim.execution_id)

    def _send_away(self, waiting: Waiting) -> None:
        """Back into the queue, which ends it if its cancel was asked for."""
        self._leave(waiting)
        self.give_back(waiting.claim)
