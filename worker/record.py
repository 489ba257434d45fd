"""The adoption record: all that a keeper needs to run a job, and all that a later agent needs to go on with it.

The agent renames it into the job's directory before "go". Keepers read it, so this file stays lean: a fork costs
what it imports.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dayfly.jobs.ports import PublishedPort
from dayfly.runtime.shape import ContainerPlan, fields_of

VERSION = 1
NAME = "record.json"


@dataclass(frozen=True)
class ArtifactRules:
    """Globs already translated to regular expressions, so that the keeper needs nothing but `re`.

    A path is tried relative to /workspace when it lies there, else as the absolute path in the container.
    `within` holds the literal leading directory of each include pattern: nothing outside them is walked.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()  # the include patterns as the job wrote them, for warnings
    changed: bool = False
    when: str = "always"  # always, on_success, on_failure

    def is_due(self, is_success: bool) -> bool:
        return self.when == "always" or (self.when == "on_success") == is_success


@dataclass(frozen=True)
class ServicePlan:
    """One service: its container (whose `ready` says when it serves) and what the keeper does with it."""

    name: str
    container: ContainerPlan
    ready_timeout_seconds: float
    stop_grace_seconds: float
    stop_signal: int
    log_limit_bytes: int
    image_ref: str
    image_digest: str | None = None
    ports: tuple[PublishedPort, ...] = ()


@dataclass(frozen=True)
class Record:
    job_id: str
    queue: str
    class_name: str
    execution_id: str
    attempt: int
    fence: str
    worker_name: str
    token: str
    boot_id: str
    claimed_at: float
    document: Mapping[str, Any]
    container: ContainerPlan
    timeout_seconds: float | None
    stop_grace_seconds: float
    stop_signal: int
    log_limit_bytes: int
    artifacts: ArtifactRules | None
    store: str
    enqueued_at: float
    client_lease: bool = False
    earlier: tuple[Mapping[str, Any], ...] = ()  # the attempts before this one, as the queue has them
    image_ref: str | None = None
    image_digest: str | None = None
    services: tuple[ServicePlan, ...] = ()
    why_no_bridge: str | None = None  # of a job that would have had one

    def to_json(self) -> bytes:
        return json.dumps({"version": VERSION, **vars(self)}, default=fields_of, separators=(",", ":")).encode()

    @staticmethod
    def from_json(raw: bytes) -> "Record":
        """Raises ValueError for anything that is not a whole record of this version."""
        try:
            fields = json.loads(raw)
            if fields.pop("version") != VERSION:
                raise ValueError("record of another version")
            rules = fields.pop("artifacts")
            container = fields.pop("container")
            earlier = tuple(fields.pop("earlier"))
            plan = ContainerPlan.from_json(container)
            services = tuple(_service(service) for service in fields.pop("services", ()))
            rules = rules and _rules(rules)
            return Record(artifacts=rules, container=plan, earlier=earlier, services=services, **fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a whole record: {error!r}") from error


def images_of(record: Record) -> dict[str, str]:
    """The digests of the images whose names could mean others tomorrow."""
    used = [(record.image_ref, record.image_digest)]
    used += [(service.image_ref, service.image_digest) for service in record.services]
    return {
        ref: digest for ref, digest in used if ref and digest and digest.startswith("sha256:") and digest not in ref
    }


def _service(fields: dict[str, Any]) -> ServicePlan:
    ports = tuple(PublishedPort(**port) for port in fields.pop("ports", ()))
    return ServicePlan(**{**fields, "container": ContainerPlan.from_json(fields["container"]), "ports": ports})


def _rules(fields: dict[str, Any]) -> ArtifactRules:
    tuples = {name: tuple(fields[name]) for name in ("include", "exclude", "within", "labels")}
    return ArtifactRules(**{**fields, **tuples})
