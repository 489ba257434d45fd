"""The job document as pydantic sees it: every field, what it may hold, its short form and its words in the schema.

Imported by door.py and schema.py only: pydantic takes longer to import than a container to start. Everything else
works with the frozen values of spec.py, which `JobModel.value()` makes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dayfly.jobs import field_types as types
from dayfly.jobs import parts, spec
from dayfly.jobs.build_model import BuildField
from dayfly.jobs.demand import MAX_PRIORITY, MIN_PRIORITY
from dayfly.jobs.mount_model import Mounts
from dayfly.jobs.network import Network
from dayfly.jobs.privileges import Seccomp
from dayfly.jobs.service_model import Services
from dayfly.jobs.text_fields import Annotations, Env, Labels, Words

# What only a container of the job's own could have: a build has one for each RUN, as its Containerfile says.
_NOT_OF_BUILDS = (
    *("image", "entrypoint", "command", "script", "env", "workdir", "user", "stdin", "merge_streams", "mounts"),
    *("devices", "cap_add", "cap_drop", "seccomp", "privileged", "secrets", "services", "artifacts", "keep", "debug"),
)


class JobModel(parts.Strict):
    version: Literal[1] = Field(default=1, description="Version of this vocabulary.")
    name: types.Line | None = Field(default=None, description="A name for people, at most 200 characters.")
    image: types.Image | None = Field(
        default=None,
        description="host, a name such as debian:12, a digest, or a directory. Default: the configuration's.",
    )
    pull: types.PullWhen | None = Field(
        default=None,
        description="When the registry is asked for the image and those of its services. Default: missing.",
    )
    build: BuildField | None = Field(
        default=None, description="Builds an image from a Containerfile and dir, in place of running a command."
    )
    entrypoint: Words | None = Field(
        default=None, description="In place of the image's entrypoint; an empty list clears it."
    )
    command: Words | None = Field(
        default=None,
        description="In place of the image's command, behind its entrypoint. Text is split as a shell would.",
    )
    script: types.Script | None = Field(
        default=None, description="Run by /bin/sh -e in place of entrypoint and command, each line echoed."
    )
    env: Env = Field(default={}, description="Variables beside the image's own. Values are text: quote numbers.")
    workdir: types.Workdir | None = Field(default=None, description="Absolute directory to start in.")
    user: types.User | None = Field(default=None, description="User or uid, perhaps with :group or :gid.")
    stdin: parts.Stdin | None = Field(default=None, description="Standard input, at most 1M; empty by default.")
    merge_streams: bool = Field(default=False, description="One stream for stdout and stderr, in exact order.")
    dir: parts.Directory | None = Field(
        default=None, description="The directory that /workspace lies over, copy-on-write."
    )
    mounts: Mounts = Field(default=[], description="Directories or files of the host, as far as its operator allows.")
    devices: parts.Devices = Field(default=[], description="Devices of the host, as far as its operator allows.")
    cap_add: types.Capabilities = Field(
        default=[], description="Capabilities beside the usual ones, as far as the operator allows; ALL is every one."
    )
    cap_drop: types.Capabilities = Field(default=[], description="Usual capabilities to do without; ALL is every one.")
    seccomp: types.SeccompMode = Field(
        default=Seccomp.DEFAULT, description="unconfined: no filter of system calls, if the operator allows it."
    )
    privileged: bool = Field(
        default=False,
        description="All capabilities over its own namespaces, no filter, no masks; if the operator allows it.",
    )
    secrets: parts.Secrets = Field(
        default={}, description="Secrets by name: the variable that has it, or its file. A bare name is a variable."
    )
    limits: parts.Limits = Field(default=parts.LimitsModel(), description="What the job may use.")
    timeout: types.Duration | None = Field(default=None, description="How long it may run. Default: 1h.")
    queue_timeout: types.Duration | None = Field(
        default=None, description="How long it may wait for a worker, each time that it waits."
    )
    stop_grace: types.Pause | None = Field(default=None, description="From the stop signal to SIGKILL. Default: 10s.")
    stop_signal: types.Signal | None = Field(
        default=None, description="Signal that asks it to stop. Default: the image's."
    )
    network: parts.Network = Field(
        default=parts.NetworkModel(mode=Network.NONE), description="What of the network it sees. Default: none."
    )
    services: Services = Field(
        default=[], description="Containers beside the job, in its network: it starts once all are ready."
    )
    artifacts: parts.Artifacts = Field(
        default=parts.ArtifactsModel(), description="Files to keep when the job has ended."
    )
    keep: types.KeepWhen = Field(
        default=spec.Keep.NEVER, description="When the job's directory and disk on the worker are kept."
    )
    queue: types.QueueName = Field(default=spec.DEFAULT_QUEUE, description="The queue to wait in.")
    priority: Annotated[int, Field(ge=MIN_PRIORITY, le=MAX_PRIORITY)] = Field(
        default=0, description="Higher goes first."
    )
    labels: Labels = Field(default={}, description="What the worker must have.")
    after: parts.After | None = Field(default=None, description="Jobs that must have ended before this one is queued.")
    delay: types.Pause | None = Field(default=None, description="How long to wait before it is queued.")
    unique: types.Line | None = Field(
        default=None, description="Refused while a job with the same key is not finished."
    )
    retry: parts.Retry | None = Field(
        default=None, description="Further attempts. Default: two, when the job was lost."
    )
    debug: bool = Field(default=False, description="Whether its log begins with the plan of its container.")
    annotations: Annotations = Field(default={}, description="Anything that tools want to remember of the job.")

    @model_validator(mode="after")
    def _says_of_each_capability_one_thing(self) -> JobModel:
        both = sorted({*self.cap_add} & {*self.cap_drop})
        if both:
            raise ValueError(f"cap_add and cap_drop both have {both[0]}")
        return self

    @model_validator(mode="after")
    def _builds_or_runs(self) -> JobModel:
        beside = [name for name in _NOT_OF_BUILDS if name in self.model_fields_set]
        if self.build is not None and beside:
            raise ValueError(f"build must not be together with {beside[0]}")
        if self.build is not None and self.build.containerfile is None and self.dir is None:
            raise ValueError("build must have a dir, or its containerfile")
        return self

    def value(self) -> spec.JobSpec:
        """The frozen value that travels between rooms."""
        return spec.JobSpec(
            version=self.version,
            name=self.name,
            image=self.image,
            pull=self.pull,
            build=None if self.build is None else self.build.value(),
            entrypoint=None if self.entrypoint is None else tuple(self.entrypoint),
            command=None if self.command is None else tuple(self.command),
            script=self.script,
            env=self.env,
            workdir=self.workdir,
            user=self.user,
            stdin=None if self.stdin is None else self.stdin.value(),
            merge_streams=self.merge_streams,
            dir=None if self.dir is None else spec.Directory(**dict(self.dir)),
            mounts=tuple(each.value() for each in self.mounts),
            devices=tuple(each.value() for each in self.devices),
            cap_add=tuple(self.cap_add),
            cap_drop=tuple(self.cap_drop),
            seccomp=self.seccomp,
            privileged=self.privileged,
            secrets=tuple(each.value(name) for name, each in self.secrets.items()),
            limits=self.limits.value(),
            timeout_seconds=self.timeout,
            queue_timeout_seconds=self.queue_timeout,
            stop_grace_seconds=self.stop_grace,
            stop_signal=self.stop_signal,
            network=self.network.value(),
            services=tuple(each.value() for each in self.services),
            artifacts=self.artifacts.value(),
            keep=self.keep,
            debug=self.debug,
            queue=self.queue,
            priority=self.priority,
            labels=self.labels,
            after=None if self.after is None else spec.After(tuple(self.after.ids), self.after.when),
            delay_seconds=self.delay,
            unique=self.unique,
            retry=None if self.retry is None else self.retry.value(),
            annotations=self.annotations,
        )
