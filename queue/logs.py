"""A job's log while it lives: a Redis Stream per job, bounded in bytes, binary safe.

    entry   o = at which byte of the whole log it starts      f = frames: time, stream, length, bytes; as in the
            keeper's own log file

Only the newest bytes are kept; a follower that comes late, or is too slow, is told how much was left out. The whole
log of a finished job lies in the store.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dayfly.jobs.errors import JobNotFound
from dayfly.queue import keys, scripts
from dayfly.queue.commands import ask

if TYPE_CHECKING:
    from redis import Redis

    from dayfly.queue.claims import Claim
    from dayfly.queue.commands import Argument

STDOUT, STDERR, NOTE = 1, 2, 3

KEPT_BYTES = 4 << 20
_ENTRY_BYTES = 16 << 10
_BLOCK_MILLISECONDS = 1000
_FRAME = struct.Struct("<QBI")
_ENDED = (b"finished", b"failed", b"stopped", b"canceled")


@dataclass(frozen=True, slots=True)
class LogLine:
    """A piece of a job's output as it arrived, often one line, its newline included.

    `time` is Unix seconds; `stream` is 1 for stdout, 2 for stderr, 3 for a note of Dayfly's own.
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

    def append_many(self, appends: Iterable[tuple[Claim, Iterable[LogLine], int | None]]) -> None:
        """append() for several jobs in one round trip."""
        rows: list[Sequence[Argument]] = []
        for claim, lines, position in appends:
            entries = list(_entries(lines))
            for index, frames in enumerate(entries):
                # Only the last entry moves the position: cut off in between, all are sent again.
                at = "" if position is None or index < len(entries) - 1 else position
                rows.append((claim.job_id, claim.fence, KEPT_BYTES, at, frames))
        scripts.LOG.each(self._redis, rows)

    def position(self, claim: Claim) -> int:
        """Up to where the keeper's log of this attempt was appended; 0 at its start."""
        fence, position = ask(self._redis, "HMGET", keys.job(claim.job_id), "dayfly_fence", "dayfly_log_position")
        return int(position) if position is not None and fence == claim.fence.encode() else 0

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
        while True:
            is_over = self._is_over(job_id)
            # A job that is over has its whole log there: read to its end, without waiting.
            found = self._fetch(last, block=None if is_over else _BLOCK_MILLISECONDS)
            for name, page in found:
                for last[name], fields in page:
                    if name == log:
                        yield from cursor.reader.lines(fields)
            if is_over and not found:
                return

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
    """Entries to lines; says where bytes were left out."""

    def __init__(self) -> None:
        self._next = 0
        self.has_begun = False

    def lines(self, fields: dict[bytes, bytes]) -> Iterator[LogLine]:
        self.has_begun = True
        offset, frames = int(fields[b"o"]), fields[b"f"]
        first = True
        at = 0
        while at < len(frames):
            nanoseconds, stream, length = _FRAME.unpack_from(frames, at)
            written_at = nanoseconds // 1000 / 1e6  # exact in a double, as nanoseconds would not be
            at += _FRAME.size
            if first and offset > self._next:
                note = f"… {offset - self._next} bytes of the log left out here\n".encode()
                yield LogLine(written_at, NOTE, note)
            first = False
            yield LogLine(written_at, stream, frames[at : at + length])
            at += length
        self._next = offset + len(frames)


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
