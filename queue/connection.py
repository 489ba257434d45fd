"""The connection to Redis, and the one edge at which its errors become ours.

Everything in this room that talks to Redis does so inside `translated()`. What leaves the room is a QueueError with
what was tried, where, why it failed and the remedy; a test fails when redis-py grows an error that is not mapped here.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import redis.exceptions as errors
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from dayfly.jobs.errors import QueueDamaged, QueueError, QueueNotReady, QueueRefused, QueueUnreachable

if TYPE_CHECKING:
    from redis.client import PubSub
    from redis.connection import ConnectionPool

CONNECT_SECONDS = 5.0
SOCKET_SECONDS = 10.0  # nothing of ours blocks longer in one command

_SCHEMES = ("redis", "rediss", "unix")


def connect(url: str) -> Redis:
    """A client of the server at `url` (redis:// rediss:// unix://). Nothing is sent before it is first used.

    No command is repeated by itself: a claim whose answer was lost may have been carried out. Raises QueueError for
    an address that is none.
    """
    scheme = urlsplit(url).scheme
    keep_alive = {} if scheme == "unix" else {"socket_keepalive": True}
    if scheme not in _SCHEMES:
        wanted = ", ".join(f"{each}://" for each in _SCHEMES)
        raise QueueError(f"cannot connect to {_without_password(url)}: its scheme is not one of {wanted}")
    try:
        return Redis.from_url(
            url,
            encoding_errors="backslashreplace",  # half of a surrogate pair, which JSON from anybody may hold
            protocol=2,  # half the cost of a command in redis-py 8 (72 us against 158), and no handshake
            socket_timeout=SOCKET_SECONDS,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **keep_alive,
        )
    except ValueError as error:
        raise QueueError(f"cannot connect to {_without_password(url)}: {error}") from error


@contextmanager
def translated(client: Redis | None = None) -> Iterator[None]:
    """Turns what redis-py raises into QueueUnreachable, QueueRefused, QueueNotReady, QueueDamaged or QueueError."""
    try:
        yield
    except (errors.RedisError, errors.RedisClusterException, OSError) as error:
        raise translate(error, _address(client)) from error


def subscription(client: Redis) -> PubSub:
    """A subscription on a connection of its own, silent about itself."""
    pubsub: PubSub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py's gap
    return pubsub


def translate(error: BaseException, address: str = "Redis") -> QueueError | QueueDamaged:
    """Our error for one of redis-py's, or for an OSError on the way to the server."""
    said = str(error).rpartition(_IN_PIPELINE)[2]
    code = said.split(" ", 1)[0].rstrip(":").upper()
    for kind, refusal in _REFUSALS:
        if isinstance(error, kind):
            return _refusal(refusal)(f"{address} refuses: {_first_line(error)}", refusal)
    if isinstance(error, errors.ResponseError) and code in _CODES:
        return _refusal(_CODES[code])(f"{address} refuses: {_first_line(error)}", _CODES[code])
    if isinstance(error, _UNREACHABLE):
        return QueueUnreachable(f"cannot reach {address}: {_first_line(error)}", _UNREACHABLE_REMEDY)
    if isinstance(error, _NOT_OURS):
        return QueueRefused(f"{address} is a cluster: {_first_line(error)}", "give Dayfly a server that is not one")
    if isinstance(error, errors.ResponseError) and any(words in said for words in _DAMAGE):
        return QueueDamaged(f"{address} holds what is not Dayfly's: {_first_line(error)}", _DAMAGE_REMEDY)
    return QueueError(f"{address} did not do what was asked: {_first_line(error)}")


class Backoff:
    """How long to wait before the next try: doubling from 50 ms to 5 s, each a random part of that or all of it.

    Random, so that a fleet that lost its server does not come back as one wave.
    """

    def __init__(self, first_seconds: float = 0.05, longest_seconds: float = 5.0) -> None:
        self._first = firsts = first_seconds
        self._longest = longest_seconds
        self._next = firsts

    def next_seconds(self) -> float:
        seconds = random.uniform(self._next / 2, self._next)
        self._next = min(self._next * 2, self._longest)
        return seconds

    def reset(self) -> None:
        self._next = self._first


_PASSWORD = "check the password in the URL (redis://:PASSWORD@host), or DAYFLY_URL"
_RIGHTS = "let its user run EVALSHA, SUBSCRIBE and the commands of RQ on the keys rq:* and dayfly:*"
_LOADING = "it is reading its data from disk; it answers when it is done"
_MEMORY = "raise maxmemory, or delete what is not needed; jobs that are there are not lost"
_READ_ONLY = "this is a replica: give the address of the primary"
_ORPHAN = "this is a replica without its primary"
_BUSY = "somebody's script is running too long there"
_CHANGED = "its part changed from primary to replica meanwhile"
_DISK = "it cannot write to its disk: free space there, or see its log"
_UNREACHABLE_REMEDY = "is the server running, and is the address right? `dayfly doctor` looks"

# From the special to the general: each is tried in this order.
_REFUSALS: tuple[tuple[type[Exception], str], ...] = (
    (errors.AuthenticationError, _PASSWORD),
    (errors.AuthenticationWrongNumberOfArgsError, _PASSWORD),
    (errors.AuthorizationError, _RIGHTS),
    (errors.NoPermissionError, _RIGHTS),
    (errors.BusyLoadingError, _LOADING),
    (errors.OutOfMemoryError, _MEMORY),
    (errors.ReadOnlyError, _READ_ONLY),
    (errors.MasterDownError, _ORPHAN),
)
# Errors that redis-py leaves as a plain ResponseError, also when a script meets them.
_CODES = {
    "NOAUTH": _PASSWORD,
    "WRONGPASS": _PASSWORD,
    "NOPERM": _RIGHTS,
    "OOM": _MEMORY,
    "READONLY": _READ_ONLY,
    "LOADING": _LOADING,
    "MISCONF": _DISK,
    "NOREPLICAS": "it wants replicas that are not there (min-replicas-to-write)",
    "MASTERDOWN": _ORPHAN,
    "BUSY": _BUSY,
    "UNBLOCKED": _CHANGED,
}
_IN_PIPELINE = " of pipeline caused error: "  # what redis-py puts in front
# The key is of another type, or a value no number; the last are Lua's own words, where a script met such a value.
_DAMAGE = ("WRONGTYPE", "is not an integer", "is not a float", "not a valid float", "attempt to")
_DAMAGE_REMEDY = "who else writes to this Redis? Give Dayfly a database of its own"
# A restart or a failover, seen from outside: over by itself.
_PASSING = (_LOADING, _READ_ONLY, _ORPHAN, _BUSY, _CHANGED)
_UNREACHABLE = (errors.ConnectionError, errors.TimeoutError, OSError)
_NOT_OURS = (
    errors.ClusterError,
    errors.RedisClusterException,
    errors.AskError,
    errors.TryAgainError,
    errors.ClusterCrossSlotError,
)


def _refusal(remedy: str) -> type[QueueRefused]:
    return QueueNotReady if remedy in _PASSING else QueueRefused


def _address(client: Redis | None) -> str:
    if client is None:
        return "Redis"
    pool: ConnectionPool = client.connection_pool
    place = pool.connection_kwargs
    if "path" in place:
        return f"Redis at unix://{place['path']}"
    return f"Redis at {place.get('host', 'localhost')}:{place.get('port', 6379)}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else url
