"""RQ's Job for what only RQ's own classes can do (dependents, repeats), reading what anybody may have written.

RQ inflates a job's `data` and `exc_info` without a bound as soon as it fetches the job: here nothing is inflated beyond
what a document may have, and what is larger is no job. Imported when there is such work: most workers never need rq.
"""

from __future__ import annotations

from typing import Any

from rq.exceptions import NoSuchJobError
from rq.job import Job

from dayfly.queue.payload import PayloadError, inflate

_NEVER_READ = (b"exc_info", b"result", b"success_callback_name", b"failure_callback_name", b"stopped_callback_name")


class BoundedJob(Job):
    """Raises NoSuchJobError for a job that RQ could not read, or not within bounds."""

    def restore(self, raw_data: dict[bytes, bytes]) -> Any:
        try:
            plain = {name: value for name, value in raw_data.items() if name not in _NEVER_READ}
            return super().restore({**plain, b"data": inflate(raw_data.get(b"data", b""))})
        except (PayloadError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise NoSuchJobError(f"job {self.id} cannot be read: {error}") from error
