"""Puts together what an agent speaks to the queue with: Claiming takes jobs, Liaison looks after them."""

from collections.abc import Callable

from redis import Redis

from dayfly.jobs.signatures import TrustedKeys
from dayfly.queue.consumer import Consumer
from dayfly.queue.foreign import Intake
from dayfly.queue.logs import LogStream
from dayfly.queue.reaper import Reaper
from dayfly.worker.builds import Builds
from dayfly.worker.capacity import Ledger
from dayfly.worker.claiming import Claiming
from dayfly.worker.finishing import Finisher
from dayfly.worker.host import host_id
from dayfly.worker.liaison import Liaison
from dayfly.worker.places import Places
from dayfly.worker.roster import Roster
from dayfly.worker.running import RunningJob
from dayfly.worker.settings import WorkerSettings
from dayfly.worker.starting import Starter
from dayfly.worker.store import FileStore


def assemble(
    settings: WorkerSettings,
    redis: Redis,
    trusted: TrustedKeys | None,
    places: Places,
    store: FileStore,
    starter: Starter,
    roster: Roster,
    ledger: Ledger,
    can_start: Callable[[], bool],
    started: Callable[[RunningJob], None],
    pull: Callable[[str, bool], None],
    builds: Builds,
) -> tuple[Claiming, Liaison]:
    """`can_start`, `started`, `pull`: see Claiming."""
    consumer = Consumer(
        redis,
        settings.name,
        settings.queues,
        host_id(),
        settings.offered_labels,
        offer=ledger.offer,
        share=ledger.share,
        lease_seconds=settings.lease_seconds,
    )
    stream = LogStream(redis)
    finisher = Finisher(consumer, store, places, settings.defaults)
    claiming = Claiming(consumer, stream, starter, ledger, can_start, started, pull, builds, finisher)
    reaper = Reaper(redis, settings.queues, settings.lease_seconds, settings.defaults.retry)
    return claiming, Liaison(consumer, stream, reaper, Intake(redis, trusted), claiming, finisher, roster, ledger)
