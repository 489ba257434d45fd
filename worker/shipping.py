"""Live logs: what keepers have written since the last look, sent to the queue's streams in one round trip.

An entry of the stream is at most one frame's worth and bears the position behind it. What is not known to have arrived
is asked for before more is sent, so a lost connection or a new agent neither loses a line nor repeats one.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from dayfly.jobs.errors import QueueDamaged, QueueError
from dayfly.queue.claims import Claim
from dayfly.queue.logs import LogLine, LogStream
from dayfly.worker.logfile import MAX_PAYLOAD_BYTES, Cursor, Frame, LogReader

_ROUND_BYTES = 256 << 10  # of one job, before the others have their turn
_HEADER_BYTES = 13
_PAUSE_SECONDS = 0.02  # what a job writes within it goes together; people do not see the difference


class HasLog(Protocol):
    """What has a log to ship: a job that runs, or a build. `ending` is None as long as more may come."""

    claim: Claim
    log: LogReader
    has_new_log: bool
    is_log_held: bool
    is_log_placed: bool
    shipped_at: float

    @property
    def ending(self) -> object: ...


@dataclass(frozen=True)
class _Append:
    """One entry for the stream, and the place in the keeper's log before and behind it."""

    job: HasLog
    lines: list[LogLine]
    before: Cursor
    position: int


def is_due(job: HasLog) -> bool:
    return job.has_new_log and time.monotonic() >= due_at(job)


def due_at(job: HasLog) -> float:
    """Until when this job's log may wait for more to come (time.monotonic()); not at its end, unless followers lag."""
    return 0.0 if job.ending is not None and not job.is_log_held else job.shipped_at + _PAUSE_SECONDS


def ship(jobs: Iterable[HasLog], stream: LogStream) -> None:
    """Send what is new of these jobs' logs. Raises a QueueError; nothing is lost then, and nothing will be repeated.

    What the stream has no room for until a follower has read on is sent again after a while.
    """
    shipped = list(jobs)
    for job in shipped:
        if not job.is_log_placed:
            job.log.skip_to(stream.position(job.claim))
            job.is_log_placed = True
    before = [job.log.cursor for job in shipped]
    appends = [append for job in shipped for append in _appends(job)]
    try:
        taken = stream.append_many((each.job.claim, each.lines, each.position) for each in appends)
    except (QueueError, QueueDamaged):
        for job, cursor in zip(shipped, before, strict=True):
            job.log.go_back(cursor)
            job.has_new_log, job.is_log_placed = True, False
        raise
    _take_back([append for append, is_taken in zip(appends, taken, strict=True) if not is_taken])


def _take_back(appends: list[_Append]) -> None:
    """The last first, so that each log ends up before the first that was not taken."""
    for append in reversed(appends):
        append.job.log.go_back(append.before)
        append.job.has_new_log, append.job.is_log_held = True, True


def _appends(job: HasLog) -> Iterator[_Append]:
    """What is new, cut into entries. Whether there is more is left in `has_new_log`."""
    job.has_new_log = job.is_log_held = False
    job.shipped_at = time.monotonic()
    lines: list[LogLine] = []
    size = total = position = 0
    before = cursor = job.log.cursor
    for frame in job.log.frames(is_final=job.ending is not None):
        cost = _HEADER_BYTES + len(frame.payload)
        if lines and size + cost > MAX_PAYLOAD_BYTES:
            yield _Append(job, lines, before, position)
            lines, size, before = [], 0, cursor
        lines.append(_line(frame))
        cursor = job.log.cursor
        position = cursor.position
        size += cost
        total += cost
        if total >= _ROUND_BYTES:
            job.has_new_log = True
            break
    if lines:
        yield _Append(job, lines, before, position)


def _line(frame: Frame) -> LogLine:
    return LogLine(frame.time_ns / 1e9, frame.stream, frame.payload)
