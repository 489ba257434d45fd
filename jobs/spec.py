"""A job as it travels between rooms: frozen values, checked at the door (door.py) and not again.

Field names are those of the document; where a document has human units, the value has a number with the unit in
its name (`limits.memory: 2G` is `spec.limits.memory_bytes`). None means "not stated": the worker's default holds.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from dayfly.jobs.build import Build
from dayfly.jobs.frozen import FrozenMap
from dayfly.jobs.mounts import Mount
from dayfly.jobs.network import NO_LIMIT, NO_NETWORK, NetworkLimit, NetworkUse
from dayfly.jobs.privileges import Device, Seccomp
from dayfly.jobs.secret_use import SecretUse, secrets_document
from dayfly.jobs.services import Service
from dayfly.jobs.signals import signal_name
from dayfly.jobs.state import Outcome

SPEC_VERSION = 1
DEFAULT_QUEUE = "default"
DEFAULT_IMAGE = "host"
DEFAULT_TIMEOUT_SECONDS = 3600.0
DEFAULT_STOP_GRACE_SECONDS = 10.0
DEFAULT_PIDS = 2048
DEFAULT_SHM_BYTES = 64 << 20

_EMPTY: Mapping[str, str] = FrozenMap()


class Keep(StrEnum):
    """When a job's directory outlives it."""

    NEVER = "never"
    FAILED = "failed"
    ALWAYS = "always"


class PullPolicy(StrEnum):
    """When a worker asks the registry for an image: each time, if it has none of that name, or not at all."""

    ALWAYS = "always"
    MISSING = "missing"
    NEVER = "never"


class ArtifactsWhen(StrEnum):
    """After which ends artifacts are collected."""

    ALWAYS = "always"
    ON_SUCCESS = "on_success"
    ON_FAILURE = "on_failure"


class AfterWhen(StrEnum):
    """How the jobs before this one must have ended: OK = succeeded, ANY = finished."""

    OK = "ok"
    ANY = "any"


OWN_DISK = "disk"
DEFAULT_PULL = PullPolicy.MISSING


@dataclass(frozen=True, slots=True)
class IoLimit:
    """Limits of one block device: "/dev/NAME" or "MAJOR:MINOR"; or of the job's own disk, OWN_DISK."""

    device: str = OWN_DISK
    read_bps: int | None = None
    write_bps: int | None = None
    read_iops: int | None = None
    write_iops: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job may use. `swap_bytes` is swap beside memory (0: none), as cgroup v2 counts it."""

    cpus: float | None = None
    cpu_burst_seconds: float | None = None
    cpu_weight: int | None = None
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    disk_bytes: int | None = None
    pids: int | None = None
    shm_bytes: int | None = None
    io: tuple[IoLimit, ...] = ()
    network: NetworkLimit = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Directory:
    """What `/workspace` lies over, in one of three forms.

    stated: `path` alone, as a person wrote it; the client turns it into one of the others;
    live:   `path` on `host`, and the `device` and `inode` it had there: only that host may take the job;
    frozen: `bundle` ("sha256:…"), a content-addressed tree that any host can hold.
    """

    path: str | None = None
    host: str | None = None
    device: int | None = None
    inode: int | None = None
    bundle: str | None = None

    @property
    def is_live(self) -> bool:
        return self.host is not None

    @property
    def is_frozen(self) -> bool:
        return self.bundle is not None


@dataclass(frozen=True, slots=True)
class Artifacts:
    """What is collected: globs relative to /workspace, absolute ones from the whole root; `changed`: all written."""

    paths: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    changed: bool = False
    when: ArtifactsWhen | None = None
    expire_in_seconds: float | None = None

    @property
    def is_wanted(self) -> bool:
        return self.changed or bool(self.paths)


@dataclass(frozen=True, slots=True)
class After:
    """The jobs that must have ended before this one is queued: ids, or unique prefixes of ids."""

    ids: tuple[str, ...]
    when: AfterWhen = AfterWhen.OK


@dataclass(frozen=True, slots=True)
class Retry:
    """Up to `max` further attempts, after the outcomes in `when` or a failure with one of `exit_codes`."""

    max: int
    when: tuple[Outcome, ...] = (Outcome.LOST,)
    exit_codes: tuple[int, ...] = ()


DEFAULT_RETRY = Retry(max=2)
DEFAULT_ARTIFACTS_WHEN = ArtifactsWhen.ALWAYS


@dataclass(frozen=True, slots=True)
class JobSpec:
    """One job. Made by door.read_job(); `entrypoint` and `command` () mean "cleared", None "the image's own"."""

    version: int = SPEC_VERSION
    name: str | None = None
    image: str | None = None
    pull: PullPolicy | None = None
    build: Build | None = None
    entrypoint: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    script: str | None = None
    env: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    workdir: str | None = None
    user: str | None = None
    stdin: bytes | None = None
    merge_streams: bool = False
    dir: Directory | None = None
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    seccomp: Seccomp = Seccomp.DEFAULT
    privileged: bool = False
    secrets: tuple[SecretUse, ...] = ()
    limits: Limits = Limits()
    timeout_seconds: float | None = None
    queue_timeout_seconds: float | None = None
    stop_grace_seconds: float | None = None
    stop_signal: int | None = None
    network: NetworkUse = NO_NETWORK
    services: tuple[Service, ...] = ()
    artifacts: Artifacts = Artifacts()
    keep: Keep = Keep.NEVER
    debug: bool = False
    queue: str = DEFAULT_QUEUE
    priority: int = 0
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    after: After | None = None
    delay_seconds: float | None = None
    unique: str | None = None
    retry: Retry | None = None
    annotations: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    def __post_init__(self) -> None:
        for name in ("env", "labels", "annotations"):
            object.__setattr__(self, name, FrozenMap(getattr(self, name)))

    def to_document(self) -> dict[str, Any]:
        """The canonical document: JSON types, what is stated only; read_job() makes an equal spec of it."""
        return {"version": self.version, **{key: value for key, value in self._fields() if value is not None}}

    def _fields(self) -> tuple[tuple[str, Any], ...]:
        return (
            ("name", self.name),
            ("image", self.image),
            ("pull", None if self.pull is None else self.pull.value),
            ("build", None if self.build is None else self.build.to_document()),
            ("entrypoint", None if self.entrypoint is None else _listed(self.entrypoint)),
            ("command", None if self.command is None else _listed(self.command)),
            ("script", self.script),
            ("env", dict(self.env) or None),
            ("workdir", self.workdir),
            ("user", self.user),
            ("stdin", None if self.stdin is None else _stdin_document(self.stdin)),
            ("merge_streams", self.merge_streams or None),
            ("dir", None if self.dir is None else _directory_document(self.dir)),
            ("mounts", [mount.to_document() for mount in self.mounts] or None),
            ("devices", [device.to_document() for device in self.devices] or None),
            ("cap_add", _listed(self.cap_add) or None),
            ("cap_drop", _listed(self.cap_drop) or None),
            ("seccomp", None if self.seccomp is Seccomp.DEFAULT else self.seccomp.value),
            ("privileged", self.privileged or None),
            ("secrets", secrets_document(self.secrets) or None),
            ("limits", _limits_document(self.limits) or None),
            ("timeout", _number(self.timeout_seconds)),
            ("queue_timeout", _number(self.queue_timeout_seconds)),
            ("stop_grace", _number(self.stop_grace_seconds)),
            ("stop_signal", None if self.stop_signal is None else _signal_document(self.stop_signal)),
            ("network", self.network.to_document()),
            ("services", [service.to_document() for service in self.services] or None),
            ("artifacts", _artifacts_document(self.artifacts) or None),
            ("keep", None if self.keep is Keep.NEVER else self.keep.value),
            ("debug", self.debug or None),
            ("queue", None if self.queue == DEFAULT_QUEUE else self.queue),
            ("priority", self.priority or None),
            ("labels", dict(self.labels) or None),
            ("after", None if self.after is None else _after_document(self.after)),
            ("delay", _number(self.delay_seconds)),
            ("unique", self.unique),
            ("retry", None if self.retry is None else _retry_document(self.retry)),
            ("annotations", dict(self.annotations) or None),
        )


def _number(value: float | None) -> int | float | None:
    return int(value) if value is not None and value == int(value) else value


def _listed(texts: Sequence[str]) -> Any:
    """A program may have put a text where texts belong: the door judges it, as a text."""
    return texts if isinstance(texts, str) else list(texts)


def _stated(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _stdin_document(stdin: bytes) -> str | dict[str, str]:
    try:
        text = stdin.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": binascii.b2a_base64(stdin, newline=False).decode()} if "\0" in text else text


def _directory_document(directory: Directory) -> str | dict[str, Any]:
    if directory.path is not None and not directory.is_live:
        return directory.path
    return _stated(
        path=directory.path,
        host=directory.host,
        device=directory.device,
        inode=directory.inode,
        bundle=directory.bundle,
    )


def _limits_document(limits: Limits) -> dict[str, Any]:
    return _stated(
        cpus=_number(limits.cpus),
        cpu_burst=_number(limits.cpu_burst_seconds),
        cpu_weight=limits.cpu_weight,
        memory=limits.memory_bytes,
        swap=limits.swap_bytes,
        disk=limits.disk_bytes,
        pids=limits.pids,
        shm=limits.shm_bytes,
        io=[_io_document(each) for each in limits.io] or None,
        network=_stated(ingress=limits.network.ingress_bps, egress=limits.network.egress_bps) or None,
    )


def _io_document(io: IoLimit) -> dict[str, Any]:
    return _stated(
        device=io.device,
        read_bps=io.read_bps,
        write_bps=io.write_bps,
        read_iops=io.read_iops,
        write_iops=io.write_iops,
    )


def _signal_document(number: int) -> str | int:
    name = signal_name(number)
    return number if name.isdigit() else name


def _artifacts_document(artifacts: Artifacts) -> dict[str, Any]:
    return _stated(
        paths=_listed(artifacts.paths) or None,
        exclude=_listed(artifacts.exclude) or None,
        changed=artifacts.changed or None,
        when=None if artifacts.when is None else artifacts.when.value,
        expire_in=_number(artifacts.expire_in_seconds),
    )


def _after_document(after: After) -> Any:
    if after.when is AfterWhen.OK:
        return _listed(after.ids)
    return {"ids": _listed(after.ids), "when": after.when.value}


def _retry_document(retry: Retry) -> dict[str, Any]:
    return _stated(
        max=retry.max,
        when=[outcome.value for outcome in retry.when],
        exit_codes=list(retry.exit_codes) or None,
    )
