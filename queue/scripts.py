"""Our Lua scripts: read from the files beside this one, sent once, called by their digest.

Each is atomic and one round trip. A server that has forgotten them (restart, SCRIPT FLUSH, failover) gets them again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError, RedisError

from dayfly.queue.commands import Argument
from dayfly.queue.connection import translated
from dayfly.queue.keys import OWN, RQ
from dayfly.queue.payload import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from redis import Redis


class Script:
    """A script made of `shared.lua`, the named files in order, and `call` at the end."""

    def __init__(self, *files: str, call: str = "") -> None:
        self._files = files
        self._call = call

    @cached_property
    def source(self) -> str:
        parts = [_read(file) for file in ("shared", *self._files)]
        return "\n".join([f"local RQ, OWN, MAX_PAYLOAD = '{RQ}', '{OWN}', {MAX_PAYLOAD_BYTES}", *parts, self._call])

    @cached_property
    def sha(self) -> str:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, redis: Redis, *arguments: Argument) -> Any:
        """Run it. Raises a QueueError."""
        with translated(redis):
            try:
                return redis.execute_command("EVALSHA", self.sha, 0, *arguments)  # type: ignore[no-untyped-call]
            except NoScriptError:
                return redis.execute_command("EVAL", self.source, 0, *arguments)  # type: ignore[no-untyped-call]

    def each(self, redis: Redis, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        """Run it with each row of arguments, all in one round trip; the answers in order. Raises a QueueError."""
        with translated(redis):
            pipeline = redis.pipeline(transaction=False)
            for arguments in calls:
                pipeline.execute_command("EVALSHA", self.sha, 0, *arguments)  # type: ignore[no-untyped-call]
            answers = pipeline.execute(raise_on_error=False) if calls else []
        if any(isinstance(answer, NoScriptError) for answer in answers):
            # The server has forgotten it: those that did not run, one by one.
            rows = zip(answers, calls, strict=True)
            answers = [self(redis, *row) if isinstance(answer, NoScriptError) else answer for answer, row in rows]
        for answer in answers:
            if isinstance(answer, RedisError):
                with translated(redis):
                    raise answer
        return answers


@cache
def _read(file: str) -> str:
    return Path(__file__).with_name(f"{file}.lua").read_text(encoding="utf-8")


CLAIM = Script("claim", call="return claim(unpack(ARGV))")
FINISH = Script("finish", call="return finish(unpack(ARGV))")
# The agent's hot path: eleven arguments of finish(), then those of claim().
TURN = Script(
    "claim", "finish", call="local waiting = finish(unpack(ARGV, 1, 11)) return {waiting, claim(unpack(ARGV, 12))}"
)
REQUEUE = Script("requeue")
MARK = Script("mark")
RENEW = Script("renew")
CANCEL = Script("cancel")
CONCLUDE = Script("conclude")
ENQUEUE = Script("stamp", "enqueue")
ADOPT = Script("stamp", "adopt")
RESERVE = Script("reserve")
SETTLE = Script("settle")
WAITING = Script("waiting")
PROMOTE = Script("promote")
OVERDUE = Script("overdue")
RECONCILE = Script("reconcile")
BEAT = Script("beat")
LOG = Script("log")
READING = Script("reading")
DISCARDED = Script("discarded")
BOUNDED = Script("bounded")
