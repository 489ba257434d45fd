"""Ports of the host that lead to a job's services: from before these start until they have ended."""

from collections.abc import Sequence
from contextlib import ExitStack

from dayfly.runtime.network.published import PortInUseError
from dayfly.runtime.network.wire import Wire
from dayfly.worker.record import ServicePlan


def publish(services: Sequence[ServicePlan], wire: Wire, parts: ExitStack) -> str | None:
    """Lead them to the job as long as `parts` is open. None: all are; else which one is another's. Raises HostError."""
    try:
        parts.enter_context(wire.published(port for service in services for port in service.ports))
    except PortInUseError as error:
        return str(error)
    return None
