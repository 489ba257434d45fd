"""Writes a job's log to our own streams, byte for byte."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from dayfly.cli.say import complain, say, write_out

if TYPE_CHECKING:
    from dayfly.queue.logs import LogLine

STDOUT, STDERR, NOTE, GAP = 1, 2, 3, 4


class Streams:
    """Where the job's two streams go. write() raises BrokenPipeError when a reader has gone, else DayflyError."""

    def __init__(self, *, stdout: int = STDOUT, stderr: int = STDERR, has_times: bool = False) -> None:
        self._targets = {STDOUT: stdout, STDERR: stderr}
        self._has_times = has_times
        self._is_at_start = {STDOUT: True, STDERR: True}

    def write(self, line: LogLine) -> None:
        if line.stream == GAP:
            complain(line.data.decode(errors="replace").rstrip("\n"))
        elif line.stream == NOTE:
            say(line.data.decode(errors="replace").rstrip("\n"))
        else:
            write_out(self._targets[line.stream], self._timed(line) if self._has_times else line.data)

    def _timed(self, line: LogLine) -> bytes:
        """A time before each line's first byte; a line may come in pieces."""
        stamp = _stamp(line.time)
        is_whole = line.data.endswith(b"\n")
        body = line.data[:-1] if is_whole else line.data
        timed = body.replace(b"\n", b"\n" + stamp) + (b"\n" if is_whole else b"")
        is_start, self._is_at_start[line.stream] = self._is_at_start[line.stream], is_whole
        return stamp + timed if is_start else timed


def _stamp(seconds: float) -> bytes:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z ".encode()
