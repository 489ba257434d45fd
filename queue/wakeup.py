"""Something to select on: readable when there may be work, when a job's cancel was asked for, or when to stop.

One thread holds a subscription (our producers and scripts publish) and, per queue, a blocking peek at the plain list
into which RQ's own producers push: `BLMOVE q q LEFT LEFT` leaves the list as it was, so nothing is lost with us.
What it cannot know, it covers: after every reconnection, and after a quiet second, there may be work.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from dayfly.jobs.errors import QueueError
from dayfly.queue import keys, scripts
from dayfly.queue.boundary import log_fault
from dayfly.queue.connection import Backoff, subscription
from dayfly.queue.peek import Peek

if TYPE_CHECKING:
    from types import TracebackType

    from redis import Redis
    from redis.client import PubSub

_QUIET_SECONDS = 1.0


class Kind(Enum):
    WORK = "there may be a job to claim"
    INTAKE = "a plain RQ producer has put something into `queue`"
    CANCEL = "the cancel of `job_id` was asked for: renew() says how"
    DRAIN = "RQ's shutdown command: finish, take nothing new"


@dataclass(frozen=True, slots=True)
class Wake:
    kind: Kind
    queue: str | None = None
    job_id: str | None = None


class Wakeup:
    """Select on it for reading, then take(). Starts its thread at once; close() ends it promptly."""

    def __init__(self, redis: Redis, worker_name: str, queues: Sequence[str]) -> None:
        self._redis = redis
        self._name = worker_name
        self._queues = tuple(queues)
        self._wakes: dict[Wake, None] = {}  # a set that keeps its order; each use of it is one atomic step
        self._signal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="dayfly-wakeup", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._signal

    def take(self) -> list[Wake]:
        """What has happened since the last call, each thing once."""
        with contextlib.suppress(BlockingIOError):  # woken by time
            os.eventfd_read(self._signal)
        taken = []
        while self._wakes:
            taken.append(self._wakes.popitem()[0])
        return taken

    def close(self) -> None:
        """End the thread and its connections; fine to call twice."""
        if self._is_closed:
            return
        self._is_closed = True
        os.eventfd_write(self._stop, 1)
        self._thread.join()
        os.close(self._signal)
        os.close(self._stop)

    def __enter__(self) -> Wakeup:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _run(self) -> None:
        backoff = Backoff()
        while not self._is_closed:
            try:
                with contextlib.ExitStack() as stack:
                    pubsub = stack.enter_context(self._subscription())
                    peeks = [stack.enter_context(Peek(self._redis, queue)) for queue in self._queues]
                    backoff.reset()
                    self._tell(Wake(Kind.WORK))
                    self._listen(pubsub, peeks)
            except (RedisError, QueueError, OSError):
                # The agent meets the same at its next command, and says so; here it is only tried again.
                select.select([self._stop], [], [], backoff.next_seconds())
            except Exception as error:  # noqa: BLE001 - a worker without this thread would take no work, and not say why
                log_fault("hear what is published", error)
                select.select([self._stop], [], [], backoff.next_seconds())

    def _subscription(self) -> PubSub:
        pubsub = subscription(self._redis)
        channels = [keys.worker_channel(self._name), keys.command_channel(self._name)]
        pubsub.subscribe(*channels, *(keys.wake_channel(queue) for queue in self._queues))
        return pubsub

    def _listen(self, pubsub: PubSub, peeks: Sequence[Peek]) -> None:
        quiet_since = time.monotonic()
        while not self._is_closed:
            for peek in peeks:
                peek.ask()
            patience = min([_QUIET_SECONDS, *(peek.pause_seconds() for peek in peeks)])
            sources = [self._stop, _socket(pubsub), *(peek for peek in peeks if peek.is_asked)]
            readable, _, _ = select.select(sources, [], [], patience)
            for peek in peeks:
                if peek in readable and peek.answer():
                    self._tell(Wake(Kind.INTAKE, queue=peek.queue))
            if self._hear(pubsub) or readable:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= _QUIET_SECONDS:
                quiet_since = time.monotonic()
                self._tell(Wake(Kind.WORK))

    def _hear(self, pubsub: PubSub) -> int:
        """Pass on what was published; how many messages there were."""
        count = 0
        # Also when select saw nothing: the client may have read more than one message from the socket.
        while (message := pubsub.get_message(timeout=0)) is not None:
            count += 1
            channel, data = message["channel"].decode(errors="replace"), message["data"]
            if channel == keys.worker_channel(self._name):
                self._tell(Wake(Kind.CANCEL, job_id=data.decode(errors="replace")))
            elif channel == keys.command_channel(self._name):
                self._obey(data)
            else:
                self._tell(Wake(Kind.WORK))
        return count

    def _obey(self, data: bytes) -> None:
        """RQ's commands (rq.command, rq-dashboard). `kill-horse` names no job and is passed over."""
        order = _parse(data)
        if order.get("command") == "shutdown":
            self._tell(Wake(Kind.DRAIN))
        elif order.get("command") in ("stop-job", "stop-execution") and isinstance(order.get("job_id"), str):
            # The flag is what counts; cancel.lua then tells this worker again, by our own channel.
            scripts.CANCEL(self._redis, order["job_id"], "cancel", "")

    def _tell(self, wake: Wake) -> None:
        self._wakes[wake] = None
        os.eventfd_write(self._signal, 1)


def _socket(pubsub: PubSub) -> Any:
    # redis-py gives no public way to select on a subscription; the attribute has been there since its first version.
    connection: Any = pubsub.connection
    return connection._sock


def _parse(data: bytes) -> dict[str, Any]:
    try:
        order = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return order if isinstance(order, dict) else {}
