"""The services of a job document: each field, its short forms and its words in the schema.

As model.py, to which these belong, imported behind the door only.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from dayfly.jobs import field_types as types
from dayfly.jobs import ports, short_forms
from dayfly.jobs.field_types import OrShort
from dayfly.jobs.names import service_name_of, shown
from dayfly.jobs.parts import Strict
from dayfly.jobs.program import no_command
from dayfly.jobs.services import Ready, Service, ServiceLimits
from dayfly.jobs.spec import DEFAULT_IMAGE
from dayfly.jobs.text_fields import TEXT, Env, Words

_MOST_SERVICES = 16
_MOST_PORTS = 64


class ReadyModel(Strict):
    tcp: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None, description="Ready when 127.0.0.1 accepts a connection on this port."
    )
    cmd: Words | None = Field(
        default=None, description="Ready when this command, run in the service's container, exits with 0."
    )

    @model_validator(mode="after")
    def _has_one_form(self) -> ReadyModel:
        if (self.tcp is None) == (not self.cmd):
            raise ValueError("must have either tcp, a port, or cmd, a command")
        return self

    def value(self) -> Ready:
        return Ready(self.tcp, tuple(self.cmd or ()))


class ServiceLimitsModel(Strict):
    cpus: types.Cpus | None = Field(default=None, description="Cpus it may use at once, of the job's.")
    memory: types.Memory | None = Field(default=None, description="Memory, at least 6M, of the job's.")
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = Field(
        default=None, description="Processes and threads, of the job's."
    )
    shm: types.Shm | None = Field(default=None, description="Size of its own /dev/shm, at least 4K. Default: 64M.")

    def value(self) -> ServiceLimits:
        return ServiceLimits(self.cpus, self.memory, self.pids, self.shm)


Port = Annotated[int, Field(ge=1, le=ports.LAST)]


class PortModel(Strict):
    host: Port = Field(description="Port of the worker's host, which its operator must have allowed.")
    port: Port = Field(description="Port in the job's network that it leads to.")
    protocol: Annotated[str, WithJsonSchema({"enum": list(ports.PROTOCOLS)})] = Field(
        default="tcp", description="tcp or udp."
    )

    @model_validator(mode="after")
    def _has_known_protocol(self) -> PortModel:
        if self.protocol not in ports.PROTOCOLS:
            raise ValueError(f"protocol must be {' or '.join(ports.PROTOCOLS)}, got {shown(self.protocol)}")
        return self

    def value(self) -> ports.PublishedPort:
        return ports.PublishedPort(self.host, self.port, self.protocol)


class ServiceModel(Strict):
    image: types.Image = Field(description="As the job's image.")
    name: types.ServiceName | None = Field(
        default=None, description="Its name and host name. Default: the last part of the image's name."
    )
    entrypoint: Words | None = Field(default=None, description="In place of the image's entrypoint.")
    command: Words | None = Field(default=None, description="In place of the image's command.")
    env: Env = Field(default={}, description="Variables beside the image's own.")
    workdir: types.Workdir | None = Field(default=None, description="Absolute directory to start in.")
    user: types.User | None = Field(default=None, description="User or uid, perhaps with :group or :gid.")
    ready: Annotated[ReadyModel, BeforeValidator(short_forms.ready), OrShort(TEXT)] | None = Field(
        default=None, description="How it shows that it serves, tcp:PORT or cmd:COMMAND. Default: its program runs."
    )
    ready_timeout: types.Duration | None = Field(
        default=None, description="How long it may take to be ready. Default: 1m."
    )
    limits: Annotated[ServiceLimitsModel, BeforeValidator(short_forms.settings), OrShort(TEXT)] = Field(
        default=ServiceLimitsModel(), description="What it may use of what the job has."
    )
    ports: Annotated[
        list[Annotated[PortModel, BeforeValidator(short_forms.port), OrShort(TEXT, {"type": "integer"})]],
        Field(max_length=_MOST_PORTS),
        BeforeValidator(short_forms.one_or_many),
    ] = Field(default=[], description="Ports of the worker's host that lead to it, 8080:80; needs network: bridge.")
    stop_signal: types.Signal | None = Field(
        default=None, description="Signal that asks it to stop. Default: the image's."
    )
    stop_grace: types.Pause | None = Field(
        default=None, description="From the stop signal to SIGKILL, once the job has ended. Default: killed at once."
    )

    @model_validator(mode="after")
    def _can_run(self) -> ServiceModel:
        if self.name is None and service_name_of(self.image) is None:
            raise ValueError(f"must have a name: none can be made of the image {shown(self.image)}")
        if self.image == DEFAULT_IMAGE and not self.command and not self.entrypoint:
            raise ValueError(f"command {no_command(DEFAULT_IMAGE)}")
        return self

    def value(self) -> Service:
        return Service(
            name=self.name or service_name_of(self.image) or "",
            image=self.image,
            entrypoint=None if self.entrypoint is None else tuple(self.entrypoint),
            command=None if self.command is None else tuple(self.command),
            env=self.env,
            workdir=self.workdir,
            user=self.user,
            ready=None if self.ready is None else self.ready.value(),
            ready_timeout_seconds=self.ready_timeout,
            limits=self.limits.value(),
            ports=tuple(port.value() for port in self.ports),
            stop_signal=self.stop_signal,
            stop_grace_seconds=self.stop_grace,
        )


def _with_own_names(services: list[ServiceModel]) -> list[ServiceModel]:
    seen: set[str] = set()
    for each in services:
        name = each.name or service_name_of(each.image) or ""
        if name in seen:
            raise ValueError(f"must not have two services of the name {shown(name)}: give one another name")
        seen.add(name)
    return services


def _with_own_ports(services: list[ServiceModel]) -> list[ServiceModel]:
    published = [f"{port.host}/{port.protocol}" for each in services for port in each.ports]
    twice = next((each for number, each in enumerate(published) if each in published[:number]), None)
    if twice is not None:
        raise ValueError(f"must not publish the port {twice} of the host twice")
    return services


Services = Annotated[
    list[Annotated[ServiceModel, BeforeValidator(short_forms.named("image")), OrShort(TEXT)]],
    Field(max_length=_MOST_SERVICES),
    AfterValidator(_with_own_names),
    AfterValidator(_with_own_ports),
    BeforeValidator(short_forms.one_or_many),
    OrShort(TEXT),
]
