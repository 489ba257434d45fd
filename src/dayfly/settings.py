"""From the configuration to what one worker is told: the values of config.toml as worker.settings has them."""

import socket
from dataclasses import replace
from pathlib import Path

from dayfly.config import Settings, home_directory, store_directory
from dayfly.image_settings import import_limits, registry_settings
from dayfly.jobs.ports import LAST
from dayfly.jobs.privileges import ALL
from dayfly.jobs.ranges import INTERNET
from dayfly.jobs.spec import DEFAULT_ARTIFACTS_WHEN, DEFAULT_PULL, DEFAULT_RETRY, ArtifactsWhen, PullPolicy
from dayfly.worker.settings import Allowed, Images, JobDefaults, Networking, WorkerSettings


def worker_settings(settings: Settings, *, url: str, is_embedded: bool, ends_when_idle: bool) -> WorkerSettings:
    return WorkerSettings(
        home=home_directory(settings),
        url=url,
        name=settings.text("worker.name") or socket.gethostname(),
        queues=settings.texts("worker.queues"),
        slots=settings.whole("worker.slots"),
        cpus=settings.number("worker.cpus"),
        memory_bytes=settings.whole("worker.memory"),
        disk_bytes=settings.whole("worker.disk"),
        labels=settings.labels("worker.labels"),
        defaults=_defaults(settings),
        allow=_ANYTHING if is_embedded else _allowed(settings),
        network=_networking(settings),
        images=_images(settings),
        log_limit_bytes=settings.whole("worker.log_limit") or 0,
        lease_seconds=settings.number("worker.lease") or 30.0,
        idle_exit_seconds=settings.number("worker.idle") if ends_when_idle else None,
        is_embedded=is_embedded,
        store_directory=store_directory(settings),
        secret_keys=tuple(Path(each) for each in settings.texts("worker.secret_keys")),
        trusted_keys=() if is_embedded else tuple(Path(each) for each in settings.texts("worker.trusted_keys")),
        oci_runtime=settings.text("runtime.oci"),
    )


# The embedded worker serves nobody but the user who started it, and what that user may read anyway.
_ANYTHING = Allowed(
    mounts=None,
    dirs=None,
    image_dirs=None,
    network_host=True,
    network=(INTERNET, "0.0.0.0/0", "::/0"),
    cap_add=None,
    seccomp_unconfined=True,
    privileged=True,
    devices=None,
    ports=(f"1-{LAST}",),
    builds=("*",),
)


def _defaults(settings: Settings) -> JobDefaults:
    return JobDefaults(
        image=settings.text("images.default_image") or "host",
        cpus=settings.number("defaults.cpus"),
        memory_bytes=settings.whole("defaults.memory"),
        disk_bytes=settings.whole("defaults.disk"),
        retry=replace(DEFAULT_RETRY, max=settings.whole("defaults.retry") or 0),
        artifacts_when=ArtifactsWhen(settings.text("defaults.artifacts_when") or DEFAULT_ARTIFACTS_WHEN),
        timeout_seconds=settings.number("defaults.timeout"),
        stop_grace_seconds=settings.number("defaults.stop_grace") or 0.0,
        pids=settings.whole("defaults.pids") or 1,
        shm_bytes=settings.whole("defaults.shm") or 0,
        network_ingress_bps=settings.whole("defaults.network_ingress"),
        network_egress_bps=settings.whole("defaults.network_egress"),
    )


def _allowed(settings: Settings) -> Allowed:
    return Allowed(
        mounts=tuple(Path(each) for each in settings.texts("allow.mounts")),
        dirs=tuple(Path(each) for each in settings.texts("allow.dirs")),
        image_dirs=tuple(Path(each) for each in settings.texts("allow.image_dirs")),
        images=settings.texts("allow.images"),
        builds=settings.texts("allow.builds"),
        network_host=settings.is_on("allow.network_host"),
        network=settings.texts("allow.network"),
        cap_add=_capabilities(settings),
        seccomp_unconfined=settings.is_on("allow.seccomp_unconfined"),
        privileged=settings.is_on("allow.privileged"),
        devices=settings.texts("allow.devices"),
        ports=settings.texts("allow.ports"),
    )


def _images(settings: Settings) -> Images:
    registries, limits = registry_settings(settings), import_limits(settings)
    return Images(
        pull=PullPolicy(settings.text("images.pull") or DEFAULT_PULL),
        mirrors=registries.mirrors,
        insecure=tuple(registries.insecure),
        inside=tuple(registries.inside),
        max_bytes=limits.bytes,
        max_files=limits.entries,
        disk_high=(settings.number("images.disk_high") or 90.0) / 100,
        disk_low=(settings.number("images.disk_low") or 80.0) / 100,
    )


def _networking(settings: Settings) -> Networking:
    return Networking(
        bridge=settings.is_on("network.bridge"),
        subnet=settings.text("network.subnet"),
        subnet6=settings.text("network.subnet6"),
        dns=settings.texts("network.dns"),
        egress=settings.texts("network.egress"),
        deny=settings.texts("network.deny"),
    )


def _capabilities(settings: Settings) -> tuple[str, ...] | None:
    names = settings.texts("allow.cap_add")
    return None if ALL in names else names
