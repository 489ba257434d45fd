"""Dayfly runs CI and batch jobs, each in a container that exists for that job alone.

    import dayfly
    result = dayfly.run(image="debian:12", script="make test", dir=".", check=True)
    jobs = dayfly.Client().submit_many({"command": ["./sim", str(i)]} for i in range(1000))
    for job in dayfly.as_completed(jobs):
        print(job.id, job.result().outcome)

Names are imported when first used: `import dayfly` alone costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from dayfly.client import Client as Client
    from dayfly.client import as_completed as as_completed
    from dayfly.client import run as run
    from dayfly.client import submit as submit
    from dayfly.job import Job as Job
    from dayfly.jobs.errors import AmbiguousId as AmbiguousId
    from dayfly.jobs.errors import ConfigError as ConfigError
    from dayfly.jobs.errors import DayflyError as DayflyError
    from dayfly.jobs.errors import DuplicateJob as DuplicateJob
    from dayfly.jobs.errors import HostError as HostError
    from dayfly.jobs.errors import ImageError as ImageError
    from dayfly.jobs.errors import ImageNotFound as ImageNotFound
    from dayfly.jobs.errors import JobFailed as JobFailed
    from dayfly.jobs.errors import JobNotFound as JobNotFound
    from dayfly.jobs.errors import NotBuilt as NotBuilt
    from dayfly.jobs.errors import QueueError as QueueError
    from dayfly.jobs.errors import QueueNotReady as QueueNotReady
    from dayfly.jobs.errors import QueueRefused as QueueRefused
    from dayfly.jobs.errors import QueueUnreachable as QueueUnreachable
    from dayfly.jobs.errors import SpecError as SpecError
    from dayfly.jobs.errors import StoreError as StoreError
    from dayfly.jobs.errors import Unsupported as Unsupported
    from dayfly.jobs.result import Result as Result
    from dayfly.jobs.spec import JobSpec as JobSpec
    from dayfly.jobs.state import Outcome as Outcome
    from dayfly.jobs.state import State as State
    from dayfly.queue.logs import LogLine as LogLine
    from dayfly.rq_function import execute as execute
    from dayfly.signing import sign as sign

_ERRORS = (
    *("AmbiguousId", "ConfigError", "DayflyError", "DuplicateJob", "HostError", "ImageError", "ImageNotFound"),
    *("JobFailed", "JobNotFound", "NotBuilt", "QueueError", "QueueNotReady", "QueueRefused"),
    *("QueueUnreachable", "SpecError", "StoreError", "Unsupported"),
)
_HOMES = {
    **dict.fromkeys(("Client", "as_completed", "run", "submit"), "dayfly.client"),
    "Job": "dayfly.job",
    "execute": "dayfly.rq_function",
    "sign": "dayfly.signing",
    "Result": "dayfly.jobs.result",
    "JobSpec": "dayfly.jobs.spec",
    **dict.fromkeys(("Outcome", "State"), "dayfly.jobs.state"),
    "LogLine": "dayfly.queue.logs",
    **dict.fromkeys(_ERRORS, "dayfly.jobs.errors"),
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'dayfly' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
