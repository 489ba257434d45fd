"""A claim: one execution's hold on one job, as the worker that has it sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dayfly.jobs.frozen import FrozenMap
from dayfly.jobs.result import Attempt

NOTHING: Mapping[str, str] = FrozenMap()


@dataclass(frozen=True, slots=True)
class Claim:
    """`class_name` is the RQ list the job came from; `attempt` counts from 1; times are Unix seconds by Redis.

    `fence` rises with each execution of a job: whatever an older one still does is refused. `earlier` are the
    attempts before this one that were counted or had a story, oldest first. `refusal` says why `document` is empty: the
    payload could not be read, and the job must not run. `signature` is what Redis has, and proves nothing by itself.
    `images`: the digests of those that the first attempt ran on.
    """

    job_id: str
    queue: str
    class_name: str
    worker_name: str
    execution_id: str
    attempt: int
    fence: str
    document: Mapping[str, Any]
    enqueued_at: float
    claimed_at: float
    client_lease: bool
    earlier: tuple[Attempt, ...] = field(default=())
    refusal: str | None = None
    signature: str | None = None
    images: Mapping[str, str] = NOTHING

    @property
    def member(self) -> str:
        """The execution's name in RQ's registries and in ours."""
        return f"{self.job_id}:{self.execution_id}"
