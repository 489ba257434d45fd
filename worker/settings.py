"""What an operator decided about one worker: frozen, made by the face from file, environment and flags."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dayfly.jobs.build import BUILDS_LABEL, WORKER_LABEL
from dayfly.jobs.plain import reads
from dayfly.jobs.ranges import INTERNET
from dayfly.jobs.spec import (
    DEFAULT_ARTIFACTS_WHEN,
    DEFAULT_IMAGE,
    DEFAULT_PIDS,
    DEFAULT_PULL,
    DEFAULT_QUEUE,
    DEFAULT_RETRY,
    DEFAULT_SHM_BYTES,
    DEFAULT_STOP_GRACE_SECONDS,
    DEFAULT_TIMEOUT_SECONDS,
    ArtifactsWhen,
    PullPolicy,
    Retry,
)
from dayfly.runtime.images.budget import ImportLimits
from dayfly.runtime.registry.settings import RegistrySettings


def default_secret_key(home: Path) -> Path:
    """The key that opens secrets where none is configured."""
    return home / "secrets.key"


@dataclass(frozen=True)
class JobDefaults:
    """What a job does not state. `None`: one slot's equal share of what the worker offers."""

    image: str = DEFAULT_IMAGE
    cpus: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    retry: Retry = DEFAULT_RETRY
    artifacts_when: ArtifactsWhen = DEFAULT_ARTIFACTS_WHEN
    timeout_seconds: float | None = DEFAULT_TIMEOUT_SECONDS
    stop_grace_seconds: float = DEFAULT_STOP_GRACE_SECONDS
    pids: int = DEFAULT_PIDS
    shm_bytes: int = DEFAULT_SHM_BYTES
    network_ingress_bps: int | None = None
    network_egress_bps: int | None = None


@dataclass(frozen=True)
class Allowed:
    """What the operator lets jobs reach of the host. `mounts`, `dirs` and `image_dirs` are path prefixes, `devices`
    and `images` globs, `cap_add` names of capabilities; `None` = any. `network`: ranges that a job may ask for beside
    those that every job reaches; `ports`: of the host, that services may publish ("8000-8999"); `builds`: globs of the
    names that images built here may have, none: nothing is built for others.
    """

    mounts: tuple[Path, ...] | None = ()
    dirs: tuple[Path, ...] | None = ()
    network_host: bool = False
    network: tuple[str, ...] = ()
    cap_add: tuple[str, ...] | None = ()
    seccomp_unconfined: bool = False
    privileged: bool = False
    devices: tuple[str, ...] | None = ()
    ports: tuple[str, ...] = ()
    image_dirs: tuple[Path, ...] | None = ()
    images: tuple[str, ...] = ("*",)
    builds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Networking:
    """The bridge that the worker offers to jobs. `egress` is what every job reaches, `deny` what none does."""

    bridge: bool = False
    subnet: str | None = None
    subnet6: str | None = None
    dns: tuple[str, ...] = ()
    egress: tuple[str, ...] = (INTERNET,)
    deny: tuple[str, ...] = ()


def _read_mirrors(mirrors: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    return {registry: tuple(hosts) for registry, hosts in mirrors.items()}


@dataclass(frozen=True)
class Images:
    """How the worker gets images that it has not: when, from which registries, and how much one may take.

    `mirrors`: by registry, the hosts asked before it; `insecure` and `inside`: see RegistrySettings. From the share
    `disk_high` of the home's disk on images that are idle go, until `disk_low` is left.
    """

    pull: PullPolicy = field(default=DEFAULT_PULL, metadata=reads(PullPolicy))
    mirrors: Mapping[str, tuple[str, ...]] = field(default_factory=dict, metadata=reads(_read_mirrors))
    insecure: tuple[str, ...] = field(default=(), metadata=reads(tuple))
    inside: tuple[str, ...] = field(default=(), metadata=reads(tuple))
    max_bytes: int = 128 << 30
    max_files: int = 2_000_000
    disk_high: float = 0.9
    disk_low: float = 0.8

    @property
    def registries(self) -> RegistrySettings:
        return RegistrySettings(self.mirrors, frozenset(self.insecure), frozenset(self.inside))

    @property
    def limits(self) -> ImportLimits:
        return ImportLimits(bytes=self.max_bytes, entries=self.max_files)


@dataclass(frozen=True)
class WorkerSettings:
    """One worker. `None` for a capacity means: what the host has; for `oci_runtime`, that Dayfly starts jobs itself.

    `trusted_keys`: files, or directories of files, of the keys whose signatures it believes; none: all jobs are taken.
    `secret_keys`, likewise: those that open secrets; none: the home's own, if there is one.
    """

    home: Path
    url: str
    name: str
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    slots: int | None = None
    cpus: float | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    defaults: JobDefaults = field(default_factory=JobDefaults)
    allow: Allowed = field(default_factory=Allowed)
    network: Networking = field(default_factory=Networking)
    images: Images = field(default_factory=Images)
    log_limit_bytes: int = 64 << 20
    lease_seconds: float = 30.0
    idle_exit_seconds: float | None = None
    is_embedded: bool = False
    store_directory: Path | None = None
    trusted_keys: tuple[Path, ...] = ()
    secret_keys: tuple[Path, ...] = ()
    oci_runtime: str | None = None

    @property
    def store(self) -> Path:
        return self.store_directory or self.home / "store"

    @property
    def label(self) -> str:
        """What tells this worker from all others, as the value of a label."""
        return hashlib.sha256(self.name.encode()).hexdigest()[:16]

    @property
    def offered_labels(self) -> dict[str, str]:
        """The operator's, and those that builds and their steps ask for."""
        builds = {BUILDS_LABEL: ""} if self.allow.builds else {}
        return {**self.labels, **builds, WORKER_LABEL: self.label}

    @property
    def cgroup_tag(self) -> str:
        """What names this home's control groups, `dayfly-<tag>` below each controller, and nobody else's."""
        return hashlib.sha256(os.fsencode(self.home)).hexdigest()[:8]
