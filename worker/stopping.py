"""Signals to an agent, as something to select on.

SIGTERM, SIGINT   drain: take nothing new, finish what runs, leave; again: put back what runs; again: at once
SIGQUIT           leave now, and leave the keepers running for the next agent
"""

import contextlib
import os
import signal
from collections.abc import Iterator

DRAIN = (signal.SIGTERM, signal.SIGINT)
LEAVE = signal.SIGQUIT


@contextlib.contextmanager
def signals() -> Iterator[int]:
    """A descriptor from which the numbers of these signals can be read, a byte each, while the block runs."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    numbers = (*DRAIN, LEAVE)
    before = [signal.signal(number, lambda received, frame: None) for number in numbers]
    previous = signal.set_wakeup_fd(writer)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
