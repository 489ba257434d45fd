"""A thread that stays with jobs while their client waits: it renews the client's lease, passes a cancel on, ends what
no worker takes in time, and heals the embedded stack.

The main thread sits in a blocking read of the log, and a signal handler may do next to nothing: it only says `cancel`
here, which writes to an eventfd.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from dayfly.jobs.errors import DayflyError, QueueError

if TYPE_CHECKING:
    from dayfly.embedded import Stack

BEAT_SECONDS = 10.0
_HEAL_SECONDS = 1.0
_FIRST_LOOK_SECONDS = 1.0  # at what time in the queue is left: most jobs are over by then
_WORKER_STARTS = 3


class Orders(Protocol):
    """The part of queue.producer.Producer that is needed here."""

    def beat(self, job_id: str) -> object: ...
    def cancel(self, job_id: str, now: bool = False) -> object: ...
    def expire(self, job_ids: Sequence[str]) -> float | None: ...


class Companion:
    """Use as a context manager around the wait. `failed` is called in its thread when waiting has become pointless."""

    def __init__(
        self,
        orders: Orders,
        job_ids: Sequence[str],
        *,
        stack: Stack | None = None,
        is_leased: bool = False,
        failed: Callable[[DayflyError], None] = lambda _: None,
    ) -> None:
        self._orders = orders
        self._job_ids = tuple(job_ids)
        self._stack = stack
        self._is_leased = is_leased
        self._failed = failed
        self._starts = 0
        self._cancels: deque[bool] = deque()
        self._is_over = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._stay, name="dayfly-companion", daemon=True)

    def __enter__(self) -> Companion:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def cancel(self, *, now: bool) -> None:
        """Ask for the jobs' end; safe in a signal handler. `now`: without their grace period."""
        self._cancels.append(now)
        os.eventfd_write(self._wake, 1)

    def cancelled(self) -> None:
        """Wait until the cancel that was asked for has been passed on, or cannot be."""
        deadline = time.monotonic() + 5.0
        while self._cancels and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _stay(self) -> None:
        next_beat = time.monotonic() + BEAT_SECONDS
        next_look = time.monotonic() + _FIRST_LOOK_SECONDS
        while not self._is_over:
            select.select([self._wake], [], [], self._patience(min(next_beat, next_look)))
            self._clear_wake()
            try:
                self._pass_cancels_on()
                if time.monotonic() >= next_beat:
                    self._beat()
                    next_beat = time.monotonic() + BEAT_SECONDS
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + self._expire()
            except QueueError:
                # The main thread sees the same and says so; here it is only tried again.
                next_beat = next_look = time.monotonic() + _HEAL_SECONDS
            if self._stack is not None and not self._heal(self._stack):
                return

    def _patience(self, next_step: float) -> float:
        until_step = max(0.0, next_step - time.monotonic())
        return min(until_step, _HEAL_SECONDS) if self._stack is not None or self._cancels else until_step

    def _clear_wake(self) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            return  # woken by time

    def _pass_cancels_on(self) -> None:
        while self._cancels:
            for job_id in self._job_ids:
                self._orders.cancel(job_id, now=self._cancels[0])
            self._cancels.popleft()

    def _beat(self) -> None:
        if not self._is_leased:
            return
        for job_id in self._job_ids:
            self._orders.beat(job_id)

    def _expire(self) -> float:
        """Seconds to the next look; with every beat, since a job may come back to the queue."""
        left = self._orders.expire(self._job_ids)
        return BEAT_SECONDS if left is None else min(left, BEAT_SECONDS)

    def _heal(self, stack: Stack) -> bool:
        """False when the stack cannot be kept alive, which `failed` has been told then."""
        try:
            self._starts += stack.heal()
        except DayflyError as error:
            self._failed(error)
            return False
        if self._starts < _WORKER_STARTS:
            return True
        self._failed(
            DayflyError(
                f"the embedded stack ended {self._starts} times: {stack.worker_log_tail()}",
                remedy=f"see {stack.run}/worker.log and `dayfly doctor`",
            )
        )
        return False
