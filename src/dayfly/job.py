"""One job as a program sees it: a name in Redis, asked anew at each call."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dayfly.home import remember_last
from dayfly.service_logs import service_log

if TYPE_CHECKING:
    import os

    from dayfly.client import Client
    from dayfly.jobs.result import ArtifactEntry, Result
    from dayfly.queue.logs import LogCursor, LogLine


class Job:
    """Made by `Client.submit` and `Client.job`. Every method may raise a QueueError."""

    def __init__(self, client: Client, job_id: str) -> None:
        self.client = client
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({self.id})"

    def status(self) -> Result:
        """Where the job is now; `outcome` is None until it is finished."""
        return self.client.records.get(self.id).result

    def wait(self, timeout: float | None = None) -> Result:
        """The result, once the job is finished. Raises TimeoutError after `timeout` seconds."""
        return self.client.await_end(self.id, timeout)

    def result(self) -> Result:
        """The result, once the job is finished."""
        return self.wait()

    def logs(
        self, follow: bool = False, cursor: LogCursor | None = None, *, service: str | None = None
    ) -> Iterator[LogLine]:
        """What the job wrote, in order; with `follow` up to its end. Or, once it has ended, what a service of it wrote.

        A finished job's log comes whole from the store when that is on this machine, else from Redis, which keeps
        only so much of it. With the same `cursor` again, nothing that was yielded before comes twice.
        """
        if service is not None:
            return service_log(self.client, self.id, service, follow=follow)
        return self.client.log_of(self.id, follow=follow, cursor=cursor)

    def cancel(self, now: bool = False) -> None:
        """Stop it, queued or running; `now`: without its grace period. A finished job stays as it is."""
        self.client.producer.cancel(self.id, now=now)

    def retry(self) -> Job:
        """Submit the same document again, under a new id. Raises QueueError while this job is not finished."""
        job_id = self.client.producer.retry(self.id)
        remember_last(job_id)
        return Job(self.client, job_id)

    def artifacts(self) -> tuple[ArtifactEntry, ...]:
        """What the job left behind; empty until it is finished."""
        return self.status().artifacts

    def download(self, out: str | os.PathLike[str] = ".") -> list[Path]:
        """Write the artifacts below `out`, each at its path relative to /workspace. Raises StoreError."""
        from dayfly.worker.delivery import deliver

        return deliver(self.client.store(), self.artifacts(), Path(out))
