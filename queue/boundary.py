"""Where the harm of one job or entry ends: what nobody foresaw is logged as a fault of ours, and the others go on.

Anybody may have written what lies in Redis. An exception that ended the agent would meet the same entry again after
every restart, and take all other jobs of the host with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from dayfly.jobs.errors import DayflyError, QueueError

if TYPE_CHECKING:
    from types import TracebackType

log = structlog.get_logger()


class contained:  # noqa: N801 - used as a function is, like contextlib.suppress
    """Log an exception of the block that nobody foresaw, and go on behind it. A QueueError passes through."""

    def __init__(self, doing: str, **about: object) -> None:
        self._doing = doing
        self._about = about

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not isinstance(error, Exception) or isinstance(error, QueueError):
            return False
        log_fault(self._doing, error, **self._about)
        return True


def log_fault(doing: str, error: Exception, **about: object) -> str:
    """Log it, with its traceback if nobody foresaw it; the sentence that tells a job's owner."""
    if isinstance(error, DayflyError):
        log.error("not done", doing=doing, why=str(error), **about)
        return f"cannot {doing}: {error}"
    log.error("fault of our own", doing=doing, why=f"{type(error).__name__}: {error}"[:500], exc_info=error, **about)
    return f"cannot {doing}: {type(error).__name__}: {error}"[:500] + "; this is a fault of Dayfly's own"
