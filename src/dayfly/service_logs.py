"""What a job's services wrote: kept apart from its own log, whole, and to be read once the job has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dayfly.jobs.errors import DayflyError, StoreError
from dayfly.queue.logs import LogLine

if TYPE_CHECKING:
    from dayfly.client import Client
    from dayfly.jobs.result import Result


def service_log(client: Client, job_id: str, service: str, *, follow: bool) -> Iterator[LogLine]:
    """The log of one service, of all attempts of the job; `follow` waits for the job's end.

    Raises DayflyError for a service that the job does not have or a job that has not ended, StoreError when the log is
    not on this machine.
    """
    from dayfly.worker.store import service_log_id

    result = client.await_end(job_id, None) if follow else client.records.get(job_id).result
    _check(result, service)
    log_id, store = service_log_id(job_id, service), client.store()
    found = next(each for each in result.services if each.name == service)
    if found.log is not None and not store.log_path(log_id).exists():
        remedy = f"it is on {result.host}, in {found.log}"
        raise StoreError(f"the log of service {service} of job {job_id} is not in the store here", remedy)
    return (LogLine(frame.time_ns / 1e9, frame.stream, frame.payload) for frame in store.read_log(log_id))


def _check(result: Result, service: str) -> None:
    if not result.is_finished:
        where = f"; until then it grows on {result.host}, below DAYFLY_HOME/jobs/{result.id}" if result.host else ""
        remedy = f"`dayfly logs -f --service {service} {result.id}` waits{where}"
        raise DayflyError(f"job {result.id} is {result.state}: its services' logs come when it has ended", remedy)
    names = [each.name for each in result.services]
    if service not in names:
        known = f"it has {', '.join(names)}" if names else "none was started beside it"
        raise DayflyError(f"job {result.id} has no service {service!r}", known)
