"""Asking Redis: one command, or several in one round trip, their errors translated.

redis-py types every answer as a union of all that any server and option could give; here the caller, who wrote the
command, knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dayfly.queue.connection import translated

if TYPE_CHECKING:
    from redis import Redis

Argument = str | bytes | int | float


def ask(redis: Redis, *command: Argument) -> Any:
    """The answer to one command. Raises a QueueError."""
    with translated(redis):
        return redis.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py's gap


def ask_each(redis: Redis, commands: Iterable[Sequence[Argument]], *, atomic: bool = False) -> list[Any]:
    """The answers to several commands in one round trip; `atomic`: as one transaction. Raises a QueueError."""
    pipeline = redis.pipeline(transaction=atomic)
    for command in commands:
        pipeline.execute_command(*command)  # type: ignore[no-untyped-call]
    with translated(redis):
        return pipeline.execute() if len(pipeline) else []


def as_text(values: Iterable[bytes]) -> list[str]:
    return [value.decode(errors="replace") for value in values]
