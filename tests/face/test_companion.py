"""The companion renews, cancels and heals while the main thread waits."""

import threading
from typing import Any

from dayfly.companion import Companion
from dayfly.jobs.errors import DayflyError, QueueUnreachable


class Orders:
    """A queue that writes down what it is told; `absences` calls find nobody there."""

    def __init__(self, absences: int = 0) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.changed = threading.Event()
        self._absences = absences

    def beat(self, job_id: str) -> None:
        self._tell("beat", job_id)

    def cancel(self, job_id: str, now: bool = False) -> None:
        self._tell("cancel", job_id, now)

    def expire(self, job_ids: Any) -> float | None:
        return None

    def _tell(self, *order: Any) -> None:
        if self._absences:
            self._absences -= 1
            raise QueueUnreachable("no Redis")
        self.told.append(order)
        self.changed.set()


def test_cancel_reaches_every_job() -> None:
    """A cancel is passed on for each job, with what it says of grace."""
    orders = Orders()
    with Companion(orders, ["A", "B"], stack=None, is_leased=True, failed=_never) as companion:
        companion.cancel(now=False)
        companion.cancelled()
        companion.cancel(now=True)
        companion.cancelled()
    assert orders.told == [("cancel", "A", False), ("cancel", "B", False), ("cancel", "A", True), ("cancel", "B", True)]


def test_cancel_outlives_a_redis_that_is_away() -> None:
    """A cancel that finds no Redis is tried again."""
    orders = Orders(absences=1)
    with Companion(orders, ["A"], stack=None, is_leased=True, failed=_never) as companion:
        companion.cancel(now=False)
        assert orders.changed.wait(20)
    assert ("cancel", "A", False) in orders.told


def test_stack_that_cannot_be_kept_alive_is_reported() -> None:
    """A worker that ends again and again is not started for ever: the wait is told why it is pointless."""

    class Dying:
        run = home = "/nowhere"

        def heal(self) -> bool:
            return True

        def worker_log_tail(self) -> str:
            return "no overlay"

    failures: list[DayflyError] = []
    reported = threading.Event()

    def failed(error: DayflyError) -> None:
        failures.append(error)
        reported.set()

    with Companion(Orders(), ["A"], stack=Dying(), is_leased=True, failed=failed):  # type: ignore[arg-type]
        assert reported.wait(20)
    assert "no overlay" in str(failures[0])


def _never(error: DayflyError) -> None:
    raise AssertionError(error)
