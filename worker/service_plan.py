"""From the services of a job's spec and their images to what the keeper runs beside the job.

As plan.py: what this worker cannot do for a service is a SpecError with the field's path.
"""

import posixpath
from collections.abc import Sequence

from dayfly.jobs.errors import SpecError
from dayfly.jobs.ports import is_port_within
from dayfly.jobs.services import DEFAULT_READY_TIMEOUT_SECONDS, Service
from dayfly.runtime.cgroups.hierarchy import Hierarchy, unenforceable
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.images.image import DEFAULT_PATH, Image
from dayfly.runtime.shape import ContainerPlan, Process, Quotas, Shape
from dayfly.worker import switches
from dayfly.worker.image_program import argv_of, stop_signal_of
from dayfly.worker.record import ServicePlan
from dayfly.worker.settings import WorkerSettings

_LOG_SHARE = 8  # of the job's own log limit
_LIMIT_NAMES = {"cpus": "cpus", "memory_bytes": "memory", "pids": "pids"}


def plan_services(
    services: Sequence[Service], images: Sequence[Image], job: Shape, settings: WorkerSettings, hierarchy: Hierarchy
) -> tuple[ServicePlan, ...]:
    """A plan for each; `images` are theirs, `job` is the shape of the job they live beside. Raises SpecError."""
    names = tuple(service.name for service in services)
    plans = []
    for number, (service, image) in enumerate(zip(services, images, strict=True)):
        path = f"services[{number}]"
        switches.check_image(f"{path}.image", image, settings)
        shape = Shape(
            image_layers=image.layers,
            host_trees=image.host_trees,
            shm_bytes=settings.defaults.shm_bytes if service.limits.shm_bytes is None else service.limits.shm_bytes,
            network=job.network,
            quotas=_quotas(service, path, job.quotas, hierarchy),
        )
        container = ContainerPlan(
            shape=shape, process=_process(service, path, image), neighbours=names, ready=service.ready
        )
        _check_ports(service, path, job, settings)
        plans.append(_plan(service, container, image, settings.log_limit_bytes // _LOG_SHARE))
    return tuple(plans)


def _plan(service: Service, container: ContainerPlan, image: Image, log_limit_bytes: int) -> ServicePlan:
    ready_timeout = service.ready_timeout_seconds
    return ServicePlan(
        name=service.name,
        container=container,
        ready_timeout_seconds=DEFAULT_READY_TIMEOUT_SECONDS if ready_timeout is None else ready_timeout,
        stop_grace_seconds=service.stop_grace_seconds or 0.0,
        stop_signal=stop_signal_of(service.stop_signal, image),
        log_limit_bytes=log_limit_bytes,
        image_ref=service.image,
        image_digest=image.digest,
        ports=service.ports,
    )


def _check_ports(service: Service, path: str, job: Shape, settings: WorkerSettings) -> None:
    for number, port in enumerate(service.ports):
        where = f"{path}.ports[{number}]"
        if job.bridge is None:
            raise SpecError(where, "needs network: bridge")
        if own_id_map() is not None:
            raise SpecError(where, "this worker is not root, and the host's ports are not its to give")
        if not is_port_within(port.host_port, settings.allow.ports):
            raise SpecError(where, f"the operator of this worker does not allow {port.host_port} ([allow] ports)")


def _quotas(service: Service, path: str, job: Quotas, hierarchy: Hierarchy) -> Quotas:
    """What is not stated is the job's alone to limit."""
    limits = service.limits
    stated = Quotas(cpus=limits.cpus, memory_bytes=limits.memory_bytes, pids=limits.pids)
    for field, reason in unenforceable(hierarchy, stated).items():
        raise SpecError(f"{path}.limits.{_LIMIT_NAMES[field]}", f"this worker cannot enforce it: {reason}")
    for field, name in _LIMIT_NAMES.items():
        own, whole = getattr(stated, field), getattr(job, field)
        if own is not None and whole is not None and own > whole:
            reason = f"is {own}, more than the job has for all together: {whole}; raise limits.{name}"
            raise SpecError(f"{path}.limits.{name}", reason)
    return stated


def _process(service: Service, path: str, image: Image) -> Process:
    return Process(
        argv=argv_of(service.entrypoint, service.command, image, f"{path}.command"),
        env={"PATH": DEFAULT_PATH, **image.config.env, **service.env},
        cwd=posixpath.join("/", service.workdir or image.config.workdir or "/"),
        user=service.user if service.user is not None else image.config.user,
        hostname=service.name,
    )
