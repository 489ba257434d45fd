"""What builds keep on a host, and what those that were killed have left there.

build-cache/<name>/          what `RUN --mount=type=cache` has shown to steps; locked (flock) by a step that has it
build/staging/<token>/       of one builder, locked while it lives    (staging.py)
build/logs/<execution>/      of one build of the agent's
kept/<job>.<attempt>/        the disk of a step, until its builder has made a layer of it
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dayfly.jobs.build import STEP
from dayfly.runtime.removal import remove_tree
from dayfly.runtime.staging import Staging, delete
from dayfly.worker import jobfiles
from dayfly.worker.places import Places, names_in

_STEP_SECONDS = 3600.0  # from the end of a step to its layer: a builder that takes longer is dead


def cache_bytes(places: Places) -> int:
    """What the caches take on disk."""
    return sum(_bytes_below(f"{places.build_caches}/{name}") for name in names_in(places.build_caches))


def prune_caches(places: Places, unused_seconds: float = 0.0) -> int:
    """Delete the caches that no step has now, nor had lately; returns how many bytes they took."""
    freed = 0
    for name in names_in(places.build_caches):
        path = f"{places.build_caches}/{name}"
        with _alone(path) as is_ours:
            if is_ours and time.time() - os.stat(path).st_mtime >= unused_seconds:
                size = _bytes_below(path)
                freed += size if remove_tree(path) else 0
    return freed


def sweep(places: Places) -> int:
    """Delete what dead builders have left; returns how many things."""
    staging = Staging(places.builds)
    with staging.locked(exclusive=True):
        leftovers = staging.leftovers()
    delete(leftovers)
    steps = [path for path in _steps(places) if time.time() - os.stat(path).st_mtime > _STEP_SECONDS]
    for path in steps:
        remove_tree(path)
    return len(leftovers) + len(steps)


def _steps(places: Places) -> Iterator[str]:
    for name in names_in(places.kept):
        path = f"{places.kept}/{name}"
        record = jobfiles.read_record(path)
        annotations = record.document.get("annotations") if record is not None else None
        if isinstance(annotations, dict) and STEP in annotations:
            yield path


@contextmanager
def _alone(path: str) -> Iterator[bool]:
    """Whether nobody else has the directory; nobody takes it meanwhile."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)


def _bytes_below(path: str) -> int:
    """Of the files that can be reached by a path: a tree that is deeper than one may be is a hostile job's."""
    total = 0
    for directory, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                total += os.lstat(f"{directory}/{name}").st_blocks * 512
    return total
