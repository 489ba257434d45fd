"""Waiting for a job through a Redis that goes away, restarts or fails over: the job goes on meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from dayfly.cli.say import say
from dayfly.jobs.errors import QueueNotReady, QueueUnreachable

_Answer = TypeVar("_Answer")

_REDIS_SECONDS = 120.0
_ANSWERED_SECONDS = 30.0  # no command of ours waits longer for Redis than 10 s: a step of this length had an answer
_AGAIN_SECONDS = 0.2


def patiently(step: Callable[[], _Answer]) -> _Answer:
    """Do `step`, and do it again while Redis is away, or not ready, for less than two minutes at a time."""
    lost_at: float | None = None
    while True:
        tried_at = time.monotonic()
        try:
            return step()
        except (QueueUnreachable, QueueNotReady) as error:
            now = time.monotonic()
            if lost_at is None or now - tried_at > _ANSWERED_SECONDS:
                say(f"{error.message}; waiting for it to come back")
                lost_at = now
            if now - lost_at > _REDIS_SECONDS:
                raise
            time.sleep(_AGAIN_SECONDS)
