"""A job's log while it lives: a Redis Stream per job, bounded in bytes, binary safe.

    entry   o = at which byte of the whole log it starts      f = frames: time, stream, length, bytes; as in the
            keeper's own log file

Only the newest bytes are kept, but what a follower has yet to read is not taken away while it reads on: the worker
waits, and the job does not notice, for its log lies on the worker's disk. A follower that comes late, or stood still
for too long, is told how much was left out. The whole log of a finished job lies in the store.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from dayfly.jobs.errors import JobNotFound, QueueError
from dayfly.queue import keys, scripts
from dayfly.queue.commands import ask
from dayfly.queue.fields import bounded, whole

if TYPE_CHECKING:
    from redis import Redis

    from dayfly.queue.claims import Claim
    from dayfly.queue.commands import Argument

STDOUT, STDERR, NOTE, GAP = 1, 2, 3, 4

KEPT_BYTES = 4 << 20
_ENTRY_BYTES = 16 << 10
_BLOCK_MILLISECONDS = 1000
_PLACE = (b"dayfly_fence", b"dayfly_log_position")
_PATIENCE_SECONDS = 15.0
_FRAME = struct.Struct("<QBI")
_ENDED = (b"finished", b"failed", b"stopped", b"canceled")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A piece of a job's output as it arrived, often one line, its newline included.

    `time` is Unix seconds; `stream` is 1 for stdout, 2 for stderr, 3 for a note of Dayfly's own, 4 for one that says
    what is missing here.
    """

    time: float
    stream: int
    data: bytes


class LogCursor:
    """How far one follower has read: given again after a lost connection, or later, nothing comes twice.

    `stored` counts what was read of a finished job's log in a store, by whoever reads that.
    """

    def __init__(self) -> None:
        self.last: dict[bytes, bytes] = {}
        self.reader = _Reader()
        self.stored = 0


class LogStream:
    """The logs of one Redis. Every method may raise a QueueError."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def append(self, claim: Claim, lines: Iterable[LogLine], position: int | None = None) -> None:
        """Add to the log of a job that `claim` holds; what a lost claim still sends is passed over.

        `position` is where in the keeper's log the lines end: sent twice, they are added once.
        """
        self.append_many([(claim, lines, position)])

    def append_many(self, appends: Iterable[tuple[Claim, Iterable[LogLine], int | None]]) -> list[bool]:
        """append() for several jobs in one round trip: whether each is done with.

        What is not must be sent again, later: a follower has yet to read what would have to go for it.
        """
        rows: list[tuple[Argument, ...]] = []
        counts: list[list[int]] = []
        for claim, group in groupby(appends, key=lambda each: each[0]):
            pairs = [_pairs(lines, position) for _, lines, position in group]
            counts.append([len(each) for each in pairs])
            words = (word for each in pairs for pair in each for word in pair)
            rows.append((claim.job_id, claim.fence, KEPT_BYTES, _PATIENCE_SECONDS, *words))
        done = scripts.LOG.each(self._redis, rows)
        return [taken for number, sizes in zip(done, counts, strict=True) for taken in _taken(number, sizes)]

    def position(self, claim: Claim) -> int:
        """Up to where the keeper's log of this attempt was appended; 0 at its start."""
        (found,) = bounded(self._redis, _PLACE, [keys.job(claim.job_id)])
        return whole(found, _PLACE[1], 0, digits=15) if found.get(_PLACE[0]) == claim.fence.encode() else 0

    def read(self, job_id: str, cursor: LogCursor | None = None) -> Iterator[LogLine]:
        """What is kept of the log now. Raises JobNotFound."""
        cursor = cursor or LogCursor()
        self._check(job_id)
        log = keys.log(job_id).encode()
        last = cursor.last = cursor.last or _start(job_id)
        while found := self._fetch({log: last[log]}, block=None):
            for last[log], fields in found[0][1]:
                yield from cursor.reader.lines(fields)

    def follow(self, job_id: str, cursor: LogCursor | None = None) -> Iterator[LogLine]:
        """The log from its start on, live, to the job's end over all its attempts. Raises JobNotFound."""
        cursor = cursor or LogCursor()
        self._check(job_id)
        # RQ's results end the wait: close() in shared.lua writes one when all of the log is there.
        log = keys.log(job_id).encode()
        last = cursor.last = cursor.last or _start(job_id)
        token = token_hex(8)
        try:
            while True:
                scripts.READING(self._redis, job_id, token, cursor.reader.offset)
                is_over = self._is_over(job_id)
                # A job that is over has its whole log there: read to its end, without waiting.
                found = self._fetch(last, block=None if is_over else _BLOCK_MILLISECONDS)
                for name, page in found:
                    for last[name], fields in page:
                        if name == log:
                            yield from cursor.reader.lines(fields)
                if is_over and not found:
                    return
        finally:
            with contextlib.suppress(QueueError):  # then it is forgotten for its silence
                ask(self._redis, "HDEL", keys.readers(job_id), token)

    def _fetch(self, last: dict[bytes, bytes], block: int | None) -> list[tuple[bytes, list[tuple[bytes, Any]]]]:
        """New entries by stream, [] when there are none (within `block` milliseconds)."""
        waiting: tuple[Argument, ...] = () if block is None else ("BLOCK", block)
        found = ask(self._redis, "XREAD", "COUNT", 256, *waiting, "STREAMS", *last.keys(), *last.values())
        return found or []

    def _is_over(self, job_id: str) -> bool:
        status = ask(self._redis, "HGET", keys.job(job_id), "status")
        return status is None or status in _ENDED

    def _check(self, job_id: str) -> None:
        if not ask(self._redis, "EXISTS", keys.job(job_id)):
            raise JobNotFound(job_id)


def _start(job_id: str) -> dict[bytes, bytes]:
    return {keys.log(job_id).encode(): b"0-0", keys.results(job_id).encode(): b"0-0"}


class _Reader:
    """Entries to lines; says where bytes were left out. `offset`: the first byte that it has not read."""

    def __init__(self) -> None:
        self.offset = 0
        self.has_begun = False

    def lines(self, fields: dict[bytes, bytes]) -> Iterator[LogLine]:
        self.has_begun = True
        offset, frames = int(fields[b"o"]), fields[b"f"]
        missing, self.offset = offset - self.offset, offset + len(frames)
        at = 0
        while at < len(frames):
            nanoseconds, stream, length = _FRAME.unpack_from(frames, at)
            written_at = nanoseconds // 1000 / 1e6  # exact in a double, as nanoseconds would not be
            if at == 0 and missing > 0:
                yield LogLine(written_at, GAP, f"… {missing} bytes of the log left out here\n".encode())
            at += _FRAME.size
            yield LogLine(written_at, stream, frames[at : at + length])
            at += length


def _pairs(lines: Iterable[LogLine], position: int | None) -> list[tuple[Argument, Argument]]:
    """The entries of one append. Only the last one moves the position: cut off in between, all are sent again."""
    entries = list(_entries(lines))
    last = "" if position is None else position
    return [("" if index < len(entries) - 1 else last, frames) for index, frames in enumerate(entries)]


def _taken(done: int, sizes: list[int]) -> Iterator[bool]:
    """Which appends of so many pairs each are whole among the first `done` pairs."""
    for size in sizes:
        done -= size
        yield done >= 0


def _entries(lines: Iterable[LogLine]) -> Iterator[bytes]:
    """Lines as frames, some 16 KiB in an entry; a longer line goes in pieces."""
    entry = bytearray()
    for line in lines:
        for start in range(0, len(line.data) or 1, _ENTRY_BYTES):
            piece = line.data[start : start + _ENTRY_BYTES]
            if entry and len(entry) + len(piece) > _ENTRY_BYTES:
                yield bytes(entry)
                entry.clear()
            entry += _FRAME.pack(round(line.time * 1e6) * 1000, line.stream, len(piece))
            entry += piece
    if entry:
        yield bytes(entry)
