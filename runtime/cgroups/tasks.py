"""Processes and their control group: joining it, and ending them where the kernel has no single call for it."""

import os
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from dayfly.runtime.cgroups import controlfile

_FIRST_PAUSE_SECONDS = 0.0002
_LONGEST_PAUSE_SECONDS = 0.01


def join(joins: Sequence[int], pid: int = 0) -> None:
    """Move the process (version 1: thread) `pid` into the group that has these `joins`; 0 is the caller.

    Raises `HostError`.
    """
    for fd in joins:
        try:
            os.write(fd, b"%d" % pid)
        except OSError as error:
            raise controlfile.failure(f"move process {pid} into the job's control group", None, error) from error


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
