"""Readings over a job's life, for a graph: bounded, evenly spaced, dense at first.

One a second until 240 are held; then every second one is dropped and the distance doubles, so a week-long job has no
more of them than a minute-long one has.
"""

import time

from dayfly.runtime.container import Container

_MOST = 240


class Samples:
    """(seconds since the start, cpu seconds, memory bytes)."""

    def __init__(self, container: Container) -> None:
        self.rows: list[tuple[float, float, int]] = []
        self.due_at = time.monotonic() + 1.0
        self._container = container
        self._began = time.monotonic()
        self._every_seconds = 1.0

    def take_if_due(self, now: float) -> None:
        """Take a sample when its time has come."""
        if now < self.due_at:
            return
        self.due_at = now + self._every_seconds
        self.take(now)

    def take(self, now: float) -> None:
        """Take a sample."""
        reading = self._container.current()
        self.rows.append((round(now - self._began, 3), reading.cpu_seconds or 0.0, reading.memory_bytes or 0))
        if len(self.rows) > _MOST:
            self.rows = self.rows[::2]
            self._every_seconds *= 2
