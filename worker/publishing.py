"""Ports of the host that lead to a job's services: from before these start until they are gone."""

from collections.abc import Iterable
from contextlib import ExitStack

from dayfly.jobs.errors import HostError
from dayfly.runtime.network.published import published
from dayfly.runtime.network.wire import Wire
from dayfly.worker.record import ServicePlan


def publish(services: Iterable[ServicePlan], wire: Wire, parts: ExitStack) -> str | None:
    """Lead them to the job as long as `parts` is open. None: all are; else which one cannot be, and why."""
    for service in services:
        for port in service.ports:
            try:
                parts.enter_context(published(wire.table, wire.addresses, port))
            except HostError as error:
                return f"service {service.name} ({service.image_ref}): {error}"
    return None
