"""A blocking look at the head of a list, on a connection of its own, that can be selected on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import TimeoutError as RedisTimeoutError

from dayfly.queue import keys

if TYPE_CHECKING:
    from types import TracebackType

    from redis import Redis

_BLOCK_SECONDS = 4.0
_ANSWER_SECONDS = 9.0  # a server that has not answered a block of 4 s by then is gone, whatever TCP says
_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 1.0


class Peek:
    """The plain list of one queue. A list that stays filled is looked at ever more rarely, down to once a second."""

    def __init__(self, redis: Redis, queue: str) -> None:
        self.queue = queue
        self.is_asked = False
        self._pool = redis.connection_pool
        self._connection: Any = None
        self._list = keys.jobs_list(queue)
        self._asked_at = 0.0
        self._pause = _FIRST_PAUSE_SECONDS
        self._next_at = 0.0

    def __enter__(self) -> Peek:
        self._connection = self._pool.get_connection()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # With a command still blocking in it, the connection is of no use to anybody else.
        self._connection.disconnect()
        self._pool.release(self._connection)

    def fileno(self) -> int:
        number: int = self._connection._sock.fileno()  # redis-py has no public way to select on a connection
        return number

    def ask(self) -> None:
        """Start to wait for the list to have a head, unless that is going on or it is too early."""
        if self.is_asked:
            if time.monotonic() - self._asked_at > _ANSWER_SECONDS:
                raise RedisTimeoutError(f"no answer to BLMOVE within {_ANSWER_SECONDS:g} s")
            return
        if time.monotonic() >= self._next_at:
            self._connection.send_command("BLMOVE", self._list, self._list, "LEFT", "LEFT", _BLOCK_SECONDS)
            self.is_asked, self._asked_at = True, time.monotonic()

    def answer(self) -> bool:
        """Whether the list has a head; False when it was empty for as long as the server waited."""
        has_head = self._connection.read_response() is not None
        self.is_asked = False
        was_waiting = time.monotonic() - self._asked_at > _FIRST_PAUSE_SECONDS
        self._pause = _FIRST_PAUSE_SECONDS if was_waiting else min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        self._next_at = time.monotonic() + (self._pause if has_head else 0.0)
        return has_head

    def pause_seconds(self) -> float:
        """How long until ask() is wanted again."""
        return _BLOCK_SECONDS if self.is_asked else max(self._next_at - time.monotonic(), 0.0)
