"""Ending the processes of a control group, where the kernel has no single call for it."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

_FIRST_PAUSE_SECONDS = 0.0002
_LONGEST_PAUSE_SECONDS = 0.01


def wait_until(is_done: Callable[[], bool], deadline: float) -> bool:
    """Ask again and again, ever more slowly, until the deadline (time.monotonic). For what gives no event."""
    pause = _FIRST_PAUSE_SECONDS
    while not is_done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    return True


def kill_all(pids: Callable[[], Iterable[int]], deadline: float) -> bool:
    """SIGKILL whoever is listed until nobody is: one pass is not enough, since tasks fork while they are listed."""

    def are_dead() -> bool:
        listed = list(pids())
        for pid in listed:
            with suppress(ProcessLookupError):  # it died meanwhile
                os.kill(pid, signal.SIGKILL)
        return not listed

    return wait_until(are_dead, deadline)
