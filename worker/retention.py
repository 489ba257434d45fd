"""What outlives jobs, and when it goes: artifacts and logs, image layers, frozen directories.

Run now and then in a thread: each may be a walk over a million files, and must not hold up the loop that renews leases.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import structlog

from dayfly.jobs.errors import DayflyError
from dayfly.queue.connection import connect
from dayfly.queue.records import Records
from dayfly.runtime import bundle
from dayfly.runtime.images.keeping import Keeping, Room
from dayfly.runtime.images.store import ImageStore
from dayfly.worker.build_leftovers import prune_caches, sweep
from dayfly.worker.in_use import documents_here, layers_in_use
from dayfly.worker.places import Places
from dayfly.worker.settings import WorkerSettings
from dayfly.worker.store import FileStore

_YOUNG_SECONDS = 24 * 3600.0  # a directory that was frozen so lately may have a job that is not in the queue yet

_CACHE_SECONDS = 30 * 86400.0

log = structlog.get_logger()


def expire(settings: WorkerSettings) -> None:
    """Take away what nothing needs any more; what fails is logged, and tried again the next time."""
    _try("store", lambda: FileStore(settings.store).expire())
    _try("builds", lambda: _expire_builds(settings))
    _try("images", lambda: _expire_images(settings))
    _try("bundles", lambda: _expire_bundles(settings))


def _expire_builds(settings: WorkerSettings) -> int:
    """What dead builders left, and caches: those that nobody has wanted for long, all where the disk is full."""
    places = Places(settings.home)
    is_full = Room.of(str(settings.home)).is_above(settings.images.disk_high)
    return sweep(places) + prune_caches(places, 0.0 if is_full else _CACHE_SECONDS)


def _expire_images(settings: WorkerSettings) -> int:
    keeping = Keeping(ImageStore(settings.home), lambda: layers_in_use(settings.home))
    freed = keeping.prune_unneeded() + keeping.make_room(settings.images.disk_high, settings.images.disk_low)
    if freed:
        log.info("images expired", freed_bytes=freed)
    return freed


def _try(what: str, step: Callable[[], int]) -> None:
    try:
        step()
    except (OSError, DayflyError) as error:
        log.error("cannot expire", what=what, why=str(error))


def _expire_bundles(settings: WorkerSettings) -> int:
    """Frozen directories that no job names which Redis still knows: one that has finished may be retried."""
    root = settings.home / "bundles"
    if not bundle.unused(root, (), _YOUNG_SECONDS):
        return 0
    named = set(_bundles(documents_here(settings.home))) | set(_bundles(_documents_known(settings.url)))
    return sum(bundle.remove(each, root, _YOUNG_SECONDS) for each in bundle.unused(root, named, _YOUNG_SECONDS))


def _documents_known(url: str) -> Iterator[Mapping[str, Any]]:
    redis = connect(url)
    try:
        yield from (record.document for record in Records(redis).all())
    finally:
        redis.close()


def _bundles(documents: Iterator[Mapping[str, Any]]) -> Iterator[str]:
    for document in documents:
        directory = document.get("dir")
        if isinstance(directory, Mapping) and isinstance(directory.get("bundle"), str):
            yield directory["bundle"]
