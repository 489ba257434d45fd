"""What SIGINT, SIGTERM and SIGHUP mean to a command that waits for jobs: cancel, then kill, then leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

from dayfly.cli.say import say
from dayfly.jobs.errors import DayflyError

if TYPE_CHECKING:
    from dayfly.companion import Companion

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GIVE_UP = signal.SIGUSR1


class Interrupts:
    """A context manager. The first signal cancels the jobs with their grace period, the second kills them at once, the
    third leaves without waiting. A signal that comes before there is a companion is kept for it.
    """

    def __init__(self) -> None:
        self._count = 0
        self._companion: Companion | None = None
        self._failure: DayflyError | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in _SIGNALS:
            # Ignored from outside (nohup, a background job of a script): it stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)
        self._before[_GIVE_UP] = signal.signal(_GIVE_UP, self._give_up)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_told(self) -> bool:
        """Whether a signal has come."""
        return self._count > 0

    def serve(self, companion: Companion) -> None:
        """From now on signals reach the jobs of `companion`."""
        self._companion = companion
        for nth in range(1, self._count + 1):
            companion.cancel(now=nth > 1)

    def fail(self, failure: DayflyError) -> None:
        """From another thread: the main thread shall stop waiting and raise `failure`."""
        self._failure = failure
        # A blocking read of the main thread goes on after a signal unless its handler raises (PEP 475).
        signal.pthread_kill(threading.main_thread().ident or 0, _GIVE_UP)

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        self._count += 1
        if self._count > 2:
            raise KeyboardInterrupt
        if self._count == 1:
            say(f"{signal.Signals(number).name}: cancelling, with its grace period; once more kills at once")
        else:
            say(f"{signal.Signals(number).name} again: killing; once more leaves without waiting")
        if self._companion is not None:
            self._companion.cancel(now=self._count > 1)

    def _give_up(self, _: int, __: FrameType | None) -> None:
        if self._failure is not None:
            raise self._failure
