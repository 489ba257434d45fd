"""A job's output on disk: frames in order of arrival, capped, readable while they are written.

    frame    = time (ns since the epoch, u64) stream (u8) length (u32), then the bytes
    log      the head: everything, until half of the limit is used
    log.1 .. the tail: segments of a quarter of the limit each, numbered upwards, of which the last two are kept.
             Each begins with a POSITION frame that holds how many bytes of output came before it (u64), so that a
             reader can say what is missing without having seen it.

The writer is the keeper, the reader is the agent, which may come and go: a Cursor says where it stopped. A reader
that holds a segment open may finish it after the writer has unlinked it. Keepers import this file: lean.
"""

import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dayfly.jobs.errors import HostError

NAME = "log"
SERVICE_PREFIX = "service-"  # of the log of a service: service-db, service-db.1 …
STDOUT, STDERR, NOTE = 1, 2, 3
POSITION = 0

_HEADER = struct.Struct("<QBI")
_COUNT = struct.Struct("<Q")
MAX_PAYLOAD_BYTES = 16 << 10  # of one frame: what an entry of the live stream holds, so that no frame is ever split

_CHUNK = 64 << 10
_SMALLEST_LIMIT = 4096
_SMALL_BYTES = 1024
_MANY_FRAMES = 50_000
_FRAMES_PER_SECOND_OF_PAUSE = 100_000_000
_LONGEST_PAUSE_SECONDS = 0.01
_READ = os.O_RDONLY | os.O_CLOEXEC
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


@dataclass(frozen=True)
class Frame:
    time_ns: int
    stream: int
    payload: bytes

    def encode(self) -> bytes:
        return _HEADER.pack(self.time_ns, self.stream, len(self.payload)) + self.payload


@dataclass(frozen=True)
class Cursor:
    """Where a reader stopped: a segment (0 = the head), a byte in it, and the bytes of output it has accounted for."""

    segment: int = 0
    offset: int = 0
    position: int = 0


def service_log(service: str) -> str:
    """The name of a service's log."""
    return f"{SERVICE_PREFIX}{service}"


def segment_name(number: int, name: str = NAME) -> str:
    return f"{name}.{number}" if number else name


class LogWriter:
    """Appends to the log in the directory behind `directory_fd`. A file is made when its first byte comes."""

    def __init__(self, directory_fd: int, limit_bytes: int, name: str = NAME) -> None:
        limit = max(limit_bytes, _SMALLEST_LIMIT)
        self.bytes_of = {STDOUT: 0, STDERR: 0, NOTE: 0}
        self.dropped_bytes = 0
        self._frames = 0
        self._directory_fd = directory_fd
        self._name = name
        self._head_bytes = limit // 2
        self._tail_bytes = limit // 4
        self._fd = -1
        self._segment = 0
        self._left = self._head_bytes
        self._begins_at = 0
        self._kept: list[tuple[int, int]] = []  # finished tail segments on disk: number, bytes of output in it

    def write(self, stream: int, payload: bytes, time_ns: int | None = None) -> None:
        """Appends `payload`, split where a segment ends."""
        now = time.time_ns() if time_ns is None else time_ns
        view = memoryview(payload)
        while view:
            if self._left <= 0:
                self._next_segment(now)
            part = view[: min(self._left, MAX_PAYLOAD_BYTES)]
            self._append(_HEADER.pack(now, stream, len(part)), part)
            self._left -= _HEADER.size + len(part)
            self._frames += 1
            self.bytes_of[stream] += len(part)
            view = view[len(part) :]

    def gather_seconds(self, size: int) -> float:
        """How long to let output gather in its pipe, of which a piece of `size` bytes came last.

        A log that is written byte by byte would have a frame for each, and whoever stores it work for minutes. So
        after many frames small pieces come ever less often, up to a hundred a second; before that nothing is held up,
        and what two streams say in turn stays in turn.
        """
        if size >= _SMALL_BYTES or self._frames < _MANY_FRAMES:
            return 0.0
        return min(self._frames / _FRAMES_PER_SECOND_OF_PAUSE, _LONGEST_PAUSE_SECONDS)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _append(self, header: bytes, payload: bytes | memoryview) -> None:
        """Raises HostError: a full disk, most of all."""
        try:
            if self._fd < 0:
                self._fd = os.open(segment_name(self._segment, self._name), _APPEND, 0o600, dir_fd=self._directory_fd)
            written = os.writev(self._fd, [header, payload])
            whole = len(header) + len(payload)
            if written < whole:
                rest = (header + bytes(payload))[written:]
                while rest:
                    rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            from dayfly.runtime.operations import remedy_for  # a client that reads logs needs nothing of the runtime

            directory = os.readlink(f"/proc/self/fd/{self._directory_fd}")
            path = f"{directory}/{segment_name(self._segment, self._name)}"
            raise HostError("write the job's log", path, error.errno, remedy_for(error)) from error

    def _next_segment(self, now: int) -> None:
        self.close()
        total = sum(self.bytes_of.values())
        if self._segment:
            self._kept.append((self._segment, total - self._begins_at))
        if len(self._kept) == 2:
            number, size = self._kept.pop(0)
            os.unlink(segment_name(number, self._name), dir_fd=self._directory_fd)
            self.dropped_bytes += size
        self._segment += 1
        self._left = self._tail_bytes
        self._begins_at = total
        self._append(_HEADER.pack(now, POSITION, _COUNT.size), _COUNT.pack(total))


class LogReader:
    """Yields the frames after a Cursor, as far as they have been written, across segments and the gap between them."""

    def __init__(self, directory_fd: int, cursor: Cursor | None = None, name: str = NAME) -> None:
        self.cursor = cursor or Cursor()
        self._directory_fd = directory_fd
        self._name = name
        self._fd = -1

    def frames(self, is_final: bool = False) -> Iterator[Frame]:
        """What has come since the last call. `is_final`: the writer is dead, so a cut frame is all there will be."""
        while True:
            yield from self._segment_frames(is_final=False)
            following = self._following_segment()
            if following is None:
                break
            # The writer was in this segment until it began the next: what it wrote between our two looks comes first.
            yield from self._segment_frames(is_final)
            self._open(following)
        if is_final:
            yield from self._segment_frames(is_final)

    def skip_to(self, position: int) -> None:
        """Pass over what an earlier reader has accounted for, up to a position that some cursor had."""
        if self.cursor.position < position:
            for _ in self.frames():
                if self.cursor.position >= position:
                    return

    def go_back(self, cursor: Cursor) -> None:
        """Read again from where a cursor of this reader was."""
        self.close()
        self.cursor = cursor

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _segment_frames(self, is_final: bool) -> Iterator[Frame]:
        if self._fd < 0 and not self._reopen():
            return
        pending = b""
        while chunk := os.pread(self._fd, _CHUNK, self.cursor.offset + len(pending)):
            pending += chunk
            start = 0
            while (frame := _decode(pending, start)) is not None:
                start += _HEADER.size + len(frame.payload)
                yield from self._account(frame, _HEADER.size + len(frame.payload))
            pending = pending[start:]
        if is_final and len(pending) > _HEADER.size:
            time_ns, stream, _ = _HEADER.unpack_from(pending)
            yield from self._account(Frame(time_ns, stream, pending[_HEADER.size :]), len(pending))

    def _account(self, frame: Frame, size: int) -> Iterator[Frame]:
        segment, offset, position = self.cursor.segment, self.cursor.offset + size, self.cursor.position
        if frame.stream == POSITION:
            begins_at = _COUNT.unpack(frame.payload.ljust(_COUNT.size, b"\0"))[0]
            self.cursor = Cursor(segment, offset, max(begins_at, position))
            if begins_at > position:
                yield Frame(frame.time_ns, NOTE, f"… {begins_at - position} bytes left out …\n".encode())
            return
        self.cursor = Cursor(segment, offset, position + len(frame.payload))
        yield frame

    def _reopen(self) -> bool:
        try:
            self._fd = os.open(segment_name(self.cursor.segment, self._name), _READ, dir_fd=self._directory_fd)
        except FileNotFoundError:
            return False
        return True

    def _open(self, segment: int) -> None:
        self.close()
        self.cursor = Cursor(segment, 0, self.cursor.position)

    def _following_segment(self) -> int | None:
        """The oldest segment on disk after the one being read: the very next, unless it has been dropped already."""
        if self.cursor.segment == 0 and self.cursor.offset < _SMALLEST_LIMIT // 2:
            return None  # the head is not full: most jobs never need the look into the directory
        try:
            with os.scandir(self._directory_fd) as entries:
                names = [entry.name for entry in entries if _is_tail(entry.name, self._name)]
        except FileNotFoundError:
            return None
        numbers = (int(name[len(self._name) + 1 :]) for name in names)
        return min((number for number in numbers if number > self.cursor.segment), default=None)


def decode_all(chunks: Iterator[bytes]) -> Iterator[Frame]:
    """The frames in a whole log that comes in pieces, as the store keeps it."""
    pending = b""
    for chunk in chunks:
        pending += chunk
        start = 0
        while (frame := _decode(pending, start)) is not None:
            start += _HEADER.size + len(frame.payload)
            yield frame
        pending = pending[start:]


def _decode(buffer: bytes, start: int) -> Frame | None:
    if len(buffer) - start < _HEADER.size:
        return None
    time_ns, stream, length = _HEADER.unpack_from(buffer, start)
    body = start + _HEADER.size
    if len(buffer) - body < length:
        return None
    return Frame(time_ns, stream, buffer[body : body + length])


def _is_tail(name: str, log: str) -> bool:
    prefix, _, number = name.partition(".")
    return prefix == log and number.isdigit()
