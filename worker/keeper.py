"""The keeper: one small process per job, parent of its container.

It prepares a container for a guessed shape, waits for "go", runs the job in it, and writes down how it ended. The agent
may die and come back at any moment; the keeper does not notice. All it needs is in the job's directory, which it works
in through a descriptor, since the agent renames it at "go".
"""

import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.blueprint import describe
from dayfly.runtime.container import Container, Host
from dayfly.runtime.operations import remedy_for
from dayfly.runtime.shape import Shape
from dayfly.runtime.title import set_title
from dayfly.worker import handover, jobfiles
from dayfly.worker import record as records
from dayfly.worker.ending import Ending
from dayfly.worker.exit import Fault
from dayfly.worker.jobdir import JobDirectory
from dayfly.worker.record import Record
from dayfly.worker.services import Services
from dayfly.worker.stop_requests import StopRequests
from dayfly.worker.supervision import Outcome, Supervision

if TYPE_CHECKING:
    from dayfly.worker.masking import Masker

_OUR_BUG = "this is a fault of Dayfly's own"


def main(host: Host, token: str, guess: Shape, control: int) -> NoReturn:
    """The whole life of a keeper; never returns."""
    try:
        set_title(f"dayfly: keeper {token}")
        directory = JobDirectory.open(f"{host.home}/keepers/{token}")
        _keep(host, token, guess, control, directory)
    finally:
        os._exit(0)


def _keep(host: Host, token: str, guess: Shape, control: int, directory: JobDirectory) -> None:
    """Whatever stops us is told in exit.json, once the container is gone: after that the job may run elsewhere."""
    try:
        directory.begin()
        _prepare_and_run(host, token, guess, control, directory)
    except Exception as error:  # noqa: BLE001 - the last door: nobody but the agent can be told, and only so
        _tell(directory, error)


def _prepare_and_run(host: Host, token: str, guess: Shape, control: int, directory: JobDirectory) -> None:
    container = None
    stops = StopRequests(directory)
    try:
        container = Container.prepare(host, guess, token)
        directory.mark(jobfiles.READY)
        secrets = handover.hear(control)
        if secrets is None:
            return  # the agent is gone, or needs us no more
        record = Record.from_json(directory.read(records.NAME))
        set_title(f"dayfly: keeper {record.job_id}")
        if record.container.shape != guess:
            container.discard()
            container = Container.prepare(host, record.container.shape, token)
        if secrets:
            syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # no core of ours, nor our memory to anybody of our uid
        _run(host, container, record, secrets, directory, stops)
    finally:
        if container is not None:
            container.discard()


def _run(
    host: Host,
    container: Container,
    record: Record,
    secrets: dict[str, str],
    directory: JobDirectory,
    stops: StopRequests,
) -> None:
    """The job itself. What it writes goes through the masker of its secrets; a job without any has none."""
    masker = _masker(secrets) if secrets else None
    ending = Ending(container, record, directory, stops, masker, image_ready_at=time.time())
    supervision = Supervision(container, record, directory, stops, masker)
    if record.document.get("debug"):
        program = None if host.oci is None else host.oci.program
        supervision.note(describe(record.container, host.ids, host.hierarchy.version == 2, program))
        for service in record.services:
            steps = describe(service.container, host.ids, host.hierarchy.version == 2)
            supervision.note(f"service {service.name}: {step}" for step in steps)
    if not record.services:
        refusal = container.start(record.container, record.stop_signal, secrets)
        ending.write(supervision.refused(refusal) if refusal else supervision.follow())
        return
    with Services(record, directory, stops, masker) as services:
        services.prepare(host, container)
        ending.write(_run_beside(services, container, record, secrets, supervision), services)


def _run_beside(
    services: Services, container: Container, record: Record, secrets: dict[str, str], supervision: Supervision
) -> Outcome:
    """The job itself, once all of its services serve; their end comes between its own and the account of it."""
    hindrance = services.begin()
    if hindrance is not None:
        outcome = supervision.hindered(hindrance)
    elif (refusal := container.start(record.container, record.stop_signal, secrets)) is not None:
        outcome = supervision.refused(refusal)
    else:
        outcome = supervision.follow(services)
    services.stop()
    return outcome


def _masker(secrets: dict[str, str]) -> "Masker":
    from binascii import a2b_base64

    from dayfly.worker.masking import Masker  # most jobs have no secrets, and a fork costs what it imports

    return Masker(a2b_base64(value) for value in secrets.values())


def _tell(directory: JobDirectory, error: Exception) -> None:
    """Write down a fault of ours, unless the job has ended before it; where that fails too, the worker's log has it."""
    try:
        if not directory.has_exit:
            directory.write_exit(cause="fault", fault=_fault(error, directory))
    except HostError as second:
        sys.stderr.write(f"dayfly: keeper: {error}; {second}\n")


def _fault(error: Exception, directory: JobDirectory) -> Fault:
    if isinstance(error, OSError):
        error = HostError("keep the job in", error.filename or directory.path, error.errno, remedy_for(error))
    if isinstance(error, HostError):
        return Fault.of(error)
    return Fault("keep the job", directory.path, None, f"{type(error).__name__}: {error}", _OUR_BUG)
