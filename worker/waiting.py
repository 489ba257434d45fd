"""Jobs that are claimed and wait for their images: held in the ledger and in Redis, with nothing of them on this host.

An agent that dies meanwhile leaves nothing behind: the next one gives back what it holds in Redis and has not here.
"""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from dayfly.jobs.spec import JobSpec
from dayfly.jobs.units import format_size
from dayfly.queue.claims import Claim
from dayfly.queue.logs import NOTE, LogLine
from dayfly.worker.pulls import News

_SECONDS_BETWEEN_NOTES = 10.0


@dataclass
class Waiting:
    """`missing` are the references of images that are still on their way, `pulled` those that came, `error` why one
    will not, `note` what is to be said of it."""

    claim: Claim
    spec: JobSpec
    missing: set[str]
    pulled: set[str] = field(default_factory=set)
    error: str | None = None
    next_note_at: float = 0.0
    note: LogLine | None = None

    def hear(self, news: News) -> None:
        """News of one of the missing; now and then there is a `note` for the job's log."""
        if news.is_over:
            self.missing.discard(news.reference)
            self.pulled.add(news.reference)
            if news.error is not None and self.error is None:
                self.error = self._used_as(news.reference) + news.error
            return
        now = time.monotonic()
        if now < self.next_note_at:
            return
        self.next_note_at = now + _SECONDS_BETWEEN_NOTES
        far = f": {format_size(news.done_bytes)} of {format_size(news.total_bytes)}" if news.total_bytes else ""
        self.note = LogLine(time.time(), NOTE, f"pulling {news.reference}{far}\n".encode())

    def _used_as(self, reference: str) -> str:
        """The field of a service's image; the job's own needs no saying."""
        services = [number for number, each in enumerate(self.spec.services) if each.image == reference]
        return f"services[{services[0]}].image: " if services and self.spec.image != reference else ""


class WaitingRoom:
    """By execution."""

    def __init__(self) -> None:
        self._jobs: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Waiting]:
        return iter(list(self._jobs.values()))

    def has(self, execution_id: str) -> bool:
        return execution_id in self._jobs

    def add(self, claim: Claim, spec: JobSpec, missing: Collection[str]) -> Waiting:
        waiting = self._jobs.setdefault(claim.execution_id, Waiting(claim, spec, set()))
        waiting.missing.update(missing)
        return waiting

    def remove(self, waiting: Waiting) -> None:
        self._jobs.pop(waiting.claim.execution_id, None)

    def for_image(self, reference: str) -> list[Waiting]:
        return [each for each in self._jobs.values() if reference in each.missing]
