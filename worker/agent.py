"""The agent of a host: one process, one loop, N slots. It claims jobs, follows their keepers, and tells the queue.

It does not run a job, it follows it: kill it at any moment and the jobs go on; the next agent of this home adopts them.
What happens comes as readable descriptors (keepers' directories by inotify, their ends by pidfd, the launcher's socket,
the queue's wakes, signals); each only notes what changed. What is to be said to the queue is said once a turn by the
liaison. While the queue is away everything else goes on.
"""

import contextlib
import os
import selectors
import time
from collections.abc import Callable
from functools import partial

import structlog

from dayfly.jobs.errors import HostError, QueueDamaged, QueueError
from dayfly.queue.connection import Backoff, connect
from dayfly.queue.wakeup import Kind, Wakeup
from dayfly.runtime import user_namespace
from dayfly.runtime.cgroups.hierarchy import open_hierarchy
from dayfly.runtime.directory_disk import why_unlimited
from dayfly.runtime.images.store import ImageStore
from dayfly.worker import events, jobfiles
from dayfly.worker.adoption import adopt
from dayfly.worker.assembly import assemble
from dayfly.worker.builds import Builds
from dayfly.worker.capacity import open_ledger
from dayfly.worker.exit import NAME as EXIT
from dayfly.worker.housekeeping import Housekeeping, leave_host
from dayfly.worker.keyring import trusted_keys
from dayfly.worker.launcher_client import Launcher
from dayfly.worker.places import Places
from dayfly.worker.plan import Planner
from dayfly.worker.pulls import Pulls
from dayfly.worker.retention import expire
from dayfly.worker.roster import Roster
from dayfly.worker.running import RunningJob
from dayfly.worker.settings import WorkerSettings
from dayfly.worker.starting import Starter
from dayfly.worker.stopping import DRAIN, LEAVE
from dayfly.worker.store import FileStore
from dayfly.worker.sweeper import Sweeper
from dayfly.worker.unsealing import Unsealer
from dayfly.worker.warm import Keeper, WarmKeepers
from dayfly.worker.watches import Watches

_KEEPERS_LEAVE_SECONDS = 10.0

log = structlog.get_logger()


def serve(settings: WorkerSettings, told: int) -> bool:
    """Serve until told to leave (stopping.py); True when it was for want of work (`idle_exit_seconds`).

    Raises DayflyError.
    """
    events.configure()
    user_namespace.enter()
    places = Places(settings.home)
    places.make()
    with places.held(), Agent(settings, places, told) as agent:
        return agent.run()


class Agent:
    """Use as a context manager; `told` is readable when a signal has come."""

    def __init__(self, settings: WorkerSettings, places: Places, told: int) -> None:
        self._settings = settings
        self._places = places
        self._stops = 0
        self._leaves_now = False
        self._busy_at = time.monotonic()
        self._quiet_until = 0.0
        self._silent_since: float | None = None
        self._backoff = Backoff()
        self._ledger = open_ledger(settings)
        self._watches = Watches()
        self._roster = Roster()
        self._selector = selectors.DefaultSelector()
        self._images = ImageStore(settings.home)
        self._store = FileStore(settings.store)
        self._hierarchy = hierarchy = open_hierarchy(settings.cgroup_tag)
        self._house = Housekeeping(Sweeper(places, hierarchy), partial(expire, settings), self._living_tokens)
        self._launcher = Launcher.start(settings.home, settings.cgroup_tag, settings.oci_runtime)
        self._warm = WarmKeepers(places, self._watches, self._launcher, self._ledger.slots + 1)
        planner = Planner(settings, self._ledger.share, hierarchy, _why_unlimited(settings))
        self._need = planner.need
        self._redis = connect(settings.url)
        self._trusted = trusted_keys(settings)
        unsealer = Unsealer(settings, self._redis, self._trusted)
        self._builds = Builds(settings, places, self._listen, self._selector.unregister)
        self._starter = Starter(
            settings, places, planner, self._images, self._warm, self._trusted, unsealer, self._builds.signers
        )
        self._wakeup = Wakeup(self._redis, settings.name, settings.queues)
        self._pulls = Pulls(settings, self._listen, self._selector.unregister, lambda news: self._claiming.heard(news))
        self._claiming, self._liaison = assemble(
            settings,
            self._redis,
            self._trusted,
            places,
            self._store,
            self._starter,
            self._roster,
            self._ledger,
            self._can_start,
            self._started,
            lambda reference, is_fresh: self._pulls.begin(reference, is_fresh=is_fresh),
            self._builds,
        )
        self._listen(told, lambda: self._heed_signals(told))
        self._listen(self._watches.fd, self._heed_changes)
        self._listen(self._launcher.fd, self._heed_launcher)
        self._listen(self._wakeup.fileno(), self._heed_wakes)

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *_: object) -> None:
        """Let the warm keepers undo what they prepared, and wait for it; jobs that run are left to run."""
        self._wakeup.close()
        self._pulls.stop()
        self._warm.close(within_seconds=_KEEPERS_LEAVE_SECONDS)
        self._launcher.close()
        self._house.sweep(within_seconds=_KEEPERS_LEAVE_SECONDS)
        if not len(self._roster):
            leave_host(self._hierarchy, self._settings.cgroup_tag)
        for job in self._roster:
            job.close()
        self._watches.close()
        self._selector.close()
        self._redis.close()

    def run(self) -> bool:
        """The loop. True when it ends for want of work."""
        self._adopt()
        self._starter.guess_default()
        log.info("worker started", worker=self._settings.name, pid=os.getpid(), slots=self._ledger.slots)
        while True:
            self._house.keep()
            self._fill()
            self._builds.look()
            self._deal()
            self._discard_gone()
            self._give_up_if_hopeless()
            reason = self._reason_to_end()
            if reason is not None:
                self._say_goodbye(reason)
                return reason == "idle"
            self._wait()

    # Turns of the loop

    def _give_up_if_hopeless(self) -> None:
        """A host on which not even the first container could be made is not one to wait on with jobs in its queue."""
        if self._warm.is_hopeless and not len(self._roster):
            self._say_goodbye("no container can be made here")
            raise HostError("make a container on this host", reason=self._warm.problem)

    def _fill(self) -> None:
        if not self._stops and self._starter.guess is not None:
            self._warm.fill(self._starter.guess)

    def _deal(self) -> None:
        if time.monotonic() < self._quiet_until:
            return
        try:
            self._liaison.deal()
        except (QueueError, QueueDamaged) as error:
            seconds = self._backoff.next_seconds()
            self._quiet_until = time.monotonic() + seconds
            self._silent_since = self._silent_since or time.monotonic()
            self._liaison.forget()
            log.error("queue does not answer", why=str(error), again_in_seconds=round(seconds, 2))
        else:
            self._backoff.reset()
            self._silent_since = None
        # What starting jobs has written into watched directories is ours: read it now, not in a turn of its own.
        self._heed_changes()

    def _discard_gone(self) -> None:
        """Forget jobs whose end is settled and whose keeper is dead."""
        for job in self._roster.leaving():
            self._roster.remove(job)
            self._discard(job)
            self._liaison.discarded(job)

    def _discard(self, job: RunningJob) -> None:
        if job.is_kept:
            job.close()
            self._watches.unwatch(job.watch)
        elif not job.discard():  # with the directory goes its watch
            self._places.throw_away(job.directory)
            self._house.sweep_now()

    def _reason_to_end(self) -> str | None:
        now = time.monotonic()
        if len(self._roster) or self._claiming.claims or (self._claiming.may_have_work and self._warm.problem is None):
            self._busy_at = now
        if self._leaves_now:
            return "told to leave the jobs running"
        if self._stops:
            return self._reason_to_end_draining(now)
        idle = self._settings.idle_exit_seconds
        return "idle" if idle is not None and now - self._busy_at >= idle else None

    def _reason_to_end_draining(self, now: float) -> str | None:
        if not len(self._roster):
            return "drained"
        is_silent = self._silent_since is not None and now - self._silent_since >= self._settings.lease_seconds
        if is_silent and all(job.is_gone for job in self._roster):
            return "drained; the results wait here, for the queue does not answer"
        return None

    def _wait(self) -> None:
        now = time.monotonic()
        due = [self._house.due_at, self._builds.due_at(), max(self._liaison.due_at(), self._quiet_until)]
        if (pause := self._warm.pause_seconds) is not None:
            due.append(now + pause)
        if self._settings.idle_exit_seconds is not None:
            due.append(self._busy_at + self._settings.idle_exit_seconds)
        for key, _ in self._selector.select(max(min(due) - now, 0.0)):
            key.data()

    def _say_goodbye(self, reason: str) -> None:
        log.info("worker ends", worker=self._settings.name, why=reason)
        if not self._leaves_now:
            with contextlib.suppress(QueueError):  # then the record expires by itself
                self._liaison.leave()

    # What happens

    def _heed_signals(self, told: int) -> None:
        for number in os.read(told, 64):
            if number == LEAVE:
                self._leaves_now = True
            elif number in DRAIN:
                self._stop()

    def _stop(self) -> None:
        self._stops += 1
        log.info("told to stop", times=self._stops, jobs=len(self._roster))
        self._warm.let_go()
        self._pulls.stop()
        with contextlib.suppress(QueueError):  # then their leases end
            self._claiming.send_all_away()
        if self._stops > 1:
            for job in self._roster:
                job.stop("requeued", is_urgent=self._stops > 2)

    def _heed_changes(self) -> None:
        changes = self._watches.changes()
        if changes is None:
            self._roster.look_at_all()
            return
        for watch, names in changes.items():
            if not self._roster.changed(watch, names):
                self._warm.changed(watch, names)

    def _heed_launcher(self) -> None:
        replies = self._launcher.replies()
        if replies is None:
            self._relaunch()
            return
        for reply in replies:
            keeper = self._warm.born(reply)
            if keeper is not None:
                self._listen(keeper.pidfd, lambda keeper=keeper: self._heed_keepers_end(keeper))  # type: ignore[misc]
            else:
                self._complain()

    def _relaunch(self) -> None:
        log.error("launcher died", why="its socket closed; its keepers live on")
        self._selector.unregister(self._launcher.fd)
        self._launcher.close()
        own = self._settings
        self._launcher = Launcher.start(own.home, own.cgroup_tag, own.oci_runtime)
        self._warm.relaunch(self._launcher)
        self._listen(self._launcher.fd, self._heed_launcher)

    def _heed_keepers_end(self, keeper: Keeper) -> None:
        self._selector.unregister(keeper.pidfd)
        self._warm.died(keeper)
        self._complain()
        self._house.sweep_soon()

    def _complain(self) -> None:
        if self._warm.problem is not None:
            log.error("no keeper", why=self._warm.problem, again_in_seconds=self._warm.pause_seconds)

    def _heed_wakes(self) -> None:
        for wake in self._wakeup.take():
            if wake.kind is Kind.CANCEL:
                self._liaison.cancel_asked()
            elif wake.kind is Kind.INTAKE and wake.queue is not None:
                self._liaison.arrived(wake.queue)
            elif wake.kind is Kind.DRAIN:
                self._stop()
            self._claiming.may_have_work = True

    def _heed_jobs_end(self, job: RunningJob) -> None:
        self._selector.unregister(job.pidfd)
        job.keeper_ended()
        self._roster.touched.add(job)
        if not jobfiles.has(job.directory, EXIT):
            self._house.sweep_now()  # it was killed, and could not take its control group away

    # Jobs

    def _adopt(self) -> None:
        for job in adopt(self._places, self._watches):
            log.info("job adopted", job=job.job_id, keeper=job.pid, is_over=job.ending is not None)
            self._follow(job)

    def _started(self, job: RunningJob) -> None:
        self._selector.unregister(job.pidfd)
        self._follow(job)

    def _follow(self, job: RunningJob) -> None:
        self._ledger.take(job.claim.execution_id, self._need(job.spec))
        self._roster.add(job)
        if not job.is_gone:
            self._listen(job.pidfd, lambda: self._heed_jobs_end(job))

    def _living_tokens(self) -> list[str]:
        keepers = [keeper.token for keeper in self._warm.all()]
        return [*keepers, *(job.record.token for job in self._roster if not job.is_gone)]

    def _can_start(self) -> bool:
        return not self._stops and not self._leaves_now and self._warm.ready > 0

    def _listen(self, fd: int, heed: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, heed)


def _why_unlimited(settings: WorkerSettings) -> str | None:
    fault = why_unlimited(str(settings.home), settings.name)
    if fault is not None:
        log.warning("no disk limits", why=str(fault))
    return None if fault is None else str(fault)
