"""The maps within a job document, each with its short form: limits, network, mounts, dir, stdin, artifacts and more.

As model.py, to which these belong, imported behind the door only.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from dayfly.jobs import field_types as types
from dayfly.jobs import network, short_forms, spec
from dayfly.jobs.field_types import OrShort
from dayfly.jobs.names import shown
from dayfly.jobs.paths import check_device_target, is_below
from dayfly.jobs.privileges import Device
from dayfly.jobs.secret_use import DEFAULT_MODE, MAX_SECRETS, SecretUse
from dayfly.jobs.secret_use import DIRECTORY as SECRETS_DIRECTORY
from dayfly.jobs.state import Outcome
from dayfly.jobs.text_fields import TEXT, TEXTS

MAX_STDIN_BYTES = 1 << 20


class Strict(BaseModel):
    """What all of them share: nothing is coerced, an unknown field is an error, nothing changes afterwards."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


_IO_LIMITS = ("read_bps", "write_bps", "read_iops", "write_iops")


class IoModel(Strict):
    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [name]} for name in _IO_LIMITS]})

    device: types.Device = Field(
        default=spec.OWN_DISK, description="The block device, /dev/NAME or MAJOR:MINOR; `disk` is the job's own disk."
    )
    read_bps: types.Bps | None = Field(default=None, description="Bytes read a second.")
    write_bps: types.Bps | None = Field(default=None, description="Bytes written a second.")
    read_iops: types.Iops | None = Field(default=None, description="Reads a second.")
    write_iops: types.Iops | None = Field(default=None, description="Writes a second.")

    @model_validator(mode="after")
    def _limits_something(self) -> IoModel:
        if all(getattr(self, name) is None for name in _IO_LIMITS):
            raise ValueError("must limit something: read_bps, write_bps, read_iops or write_iops")
        return self


Io = Annotated[
    list[Annotated[IoModel, BeforeValidator(short_forms.io_limit), OrShort(TEXT)]],
    Field(max_length=32),
    BeforeValidator(short_forms.one_or_many),
    OrShort(TEXT),
]


class NetworkLimitModel(Strict):
    ingress: types.Rate | None = Field(default=None, description="Bytes received a second, at least 1K.")
    egress: types.Rate | None = Field(default=None, description="Bytes sent a second, at least 1K.")

    def value(self) -> network.NetworkLimit:
        return network.NetworkLimit(self.ingress, self.egress)


class LimitsModel(Strict):
    cpus: types.Cpus | None = Field(
        default=None, description="Cpus it may use at once, as a quota. Default: one slot's share."
    )
    cpu_burst: types.Burst | None = Field(default=None, description="Unused cpu time it may save up, at most 1s.")
    cpu_weight: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None, description="Share of contended cpus against other jobs; 100 is usual."
    )
    memory: types.Memory | None = Field(default=None, description="Memory, at least 6M. Default: one slot's share.")
    swap: types.Swap | None = Field(default=None, description="Swap beside the memory; 0 is none.")
    disk: types.Disk | None = Field(
        default=None, description="What it may write, at least 1M. Default: one slot's share."
    )
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = Field(
        default=None, description="Processes and threads. Default: 2048."
    )
    shm: types.Shm | None = Field(default=None, description="Size of /dev/shm, at least 4K. Default: 64M.")
    io: Io = Field(default=[], description="Limits of block devices.")
    network: Annotated[NetworkLimitModel, BeforeValidator(short_forms.settings), OrShort(TEXT)] = Field(
        default=NetworkLimitModel(), description="Limits of a job on the bridge."
    )

    def value(self) -> spec.Limits:
        return spec.Limits(
            cpus=self.cpus,
            cpu_burst_seconds=self.cpu_burst,
            cpu_weight=self.cpu_weight,
            memory_bytes=self.memory,
            swap_bytes=self.swap,
            disk_bytes=self.disk,
            pids=self.pids,
            shm_bytes=self.shm,
            io=tuple(spec.IoLimit(**dict(each)) for each in self.io),
            network=self.network.value(),
        )


Limits = Annotated[LimitsModel, BeforeValidator(short_forms.settings), OrShort(TEXT)]


class NetworkModel(Strict):
    mode: types.NetworkMode = Field(
        default=network.Network.BRIDGE,
        description="none: loopback only; bridge: a link of its own; host: the host's; auto: bridge if there is one.",
    )
    allow: (
        Annotated[
            list[types.AddressRange],
            Field(max_length=100),
            BeforeValidator(short_forms.one_or_many),
            OrShort(TEXT),
        ]
        | None
    ) = Field(default=None, description="All that it reaches. Default: what the worker's operator lets every job.")

    @model_validator(mode="after")
    def _has_a_bridge(self) -> NetworkModel:
        if self.allow is not None and self.mode not in (network.Network.BRIDGE, network.Network.AUTO):
            raise ValueError(f"must not have allow with mode {self.mode}: only a bridge keeps to it")
        return self

    def value(self) -> network.NetworkUse:
        return network.NetworkUse(self.mode, None if self.allow is None else tuple(self.allow))


Network = Annotated[NetworkModel, BeforeValidator(short_forms.named("mode")), OrShort({"enum": list(network.Network)})]


class DeviceModel(Strict):
    source: types.DevicePath = Field(description="The device on the worker's host, below /dev.")
    target: types.DevicePath | None = Field(
        default=None, description="Where the job sees it, below /dev. Default: as the source."
    )
    permissions: types.DevicePermissions = Field(
        default="rw", description="r: read, w: write, m: make; no job can make nodes of devices, so m is no more."
    )

    @model_validator(mode="after")
    def _is_none_of_every_container(self) -> DeviceModel:
        check_device_target(self.target or self.source)
        return self

    def value(self) -> Device:
        return Device(self.source, self.target or self.source, self.permissions)


def _with_own_nodes(devices: list[DeviceModel]) -> list[DeviceModel]:
    targets = [each.value().target for each in devices]
    for target in targets:
        if targets.count(target) > 1 or any(is_below(other, target) for other in targets if other != target):
            raise ValueError(f"must not have two devices at {shown(target)}, or one below it")
    return devices


Devices = Annotated[
    list[Annotated[DeviceModel, BeforeValidator(short_forms.device), OrShort(TEXT)]],
    Field(max_length=32),
    AfterValidator(_with_own_nodes),
    BeforeValidator(short_forms.one_or_many),
    OrShort(TEXT),
]


class SecretModel(Strict):
    env: types.EnvName | None = Field(default=None, description="The variable that has it.")
    file: types.Target | None = Field(default=None, description="Path of the file. Default: /run/secrets/NAME.")
    mode: types.FileMode = Field(default=DEFAULT_MODE, description="Mode of the file, in quotes. Default: 0400.")

    @model_validator(mode="after")
    def _is_one(self) -> SecretModel:
        if self.env is not None and self.model_fields_set & {"file", "mode"}:
            raise ValueError("must be a variable or a file (env, or file and mode), not both")
        return self

    def value(self, name: str) -> SecretUse:
        file = None if self.file == f"{SECRETS_DIRECTORY}/{name}" else self.file
        return SecretUse(name, self.env, file, self.mode)


def _with_own_places(secrets: dict[str, SecretModel]) -> dict[str, SecretModel]:
    seen: set[str] = set()
    for name, each in secrets.items():
        place = each.env or each.file or f"{SECRETS_DIRECTORY}/{name}"
        if place in seen:
            raise ValueError(f"must not have two secrets as {shown(place)}")
        seen.add(place)
    return secrets


Secrets = Annotated[
    dict[types.SecretName, Annotated[SecretModel, BeforeValidator(short_forms.secret), OrShort(TEXT)]],
    Field(max_length=MAX_SECRETS),
    AfterValidator(_with_own_places),
    BeforeValidator(short_forms.secrets),
    OrShort(TEXT, TEXTS),
]


class DirectoryModel(Strict):
    path: types.StatedPath | None = Field(default=None, description="The directory, on the client or on `host`.")
    host: types.HostId | None = Field(default=None, description="Live: the only host that may take the job.")
    device: Annotated[int, Field(ge=0, lt=1 << 64)] | None = Field(
        default=None, description="Live: st_dev of the directory."
    )
    inode: Annotated[int, Field(ge=1, lt=1 << 64)] | None = Field(
        default=None, description="Live: st_ino of the directory."
    )
    bundle: types.Digest | None = Field(default=None, description="Frozen: the digest of a content-addressed tree.")

    @model_validator(mode="after")
    def _has_one_form(self) -> DirectoryModel:
        live = (self.host, self.device, self.inode)
        if self.bundle is not None and (self.path is not None or any(each is not None for each in live)):
            raise ValueError("must have bundle alone, or path, host, device and inode")
        if self.bundle is None and self.path is None:
            raise ValueError("must have a path or a bundle")
        if any(each is None for each in live) and any(each is not None for each in live):
            raise ValueError("must have host, device and inode together")
        if self.host is not None and not (self.path or "").startswith("/"):
            raise ValueError("must have an absolute path with host, device and inode")
        return self


Directory = Annotated[DirectoryModel, BeforeValidator(short_forms.named("path")), OrShort(TEXT)]


class StdinModel(Strict):
    text: types.Text | None = Field(default=None, description="Standard input as text.")
    base64: str | None = Field(default=None, description="Standard input as base64, for what is no text.")

    @model_validator(mode="after")
    def _fits(self) -> StdinModel:
        if (self.text is None) == (self.base64 is None):
            raise ValueError("must have either text or base64")
        if len(self.value()) > MAX_STDIN_BYTES:
            raise ValueError(f"must be 1M or less, got {len(self.value())} bytes")
        return self

    def value(self) -> bytes:
        if self.base64 is None:
            return (self.text or "").encode()
        try:
            return base64.b64decode(self.base64, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ValueError(f"is not base64: {error}") from error


Stdin = Annotated[StdinModel, BeforeValidator(short_forms.named("text")), OrShort(TEXT)]


Patterns = Annotated[
    list[types.Pattern], Field(max_length=1000), BeforeValidator(short_forms.one_or_many), OrShort(TEXT)
]


class ArtifactsModel(Strict):
    paths: Patterns = Field(default=[], description="Globs, below /workspace or absolute; ** crosses directories.")
    exclude: Patterns = Field(default=[], description="Globs of what is left out again.")
    changed: bool = Field(default=False, description="Everything that the job wrote.")
    when: types.CollectWhen | None = Field(default=None, description="After which ends to collect. Default: always.")
    expire_in: types.Duration | None = Field(default=None, description="How long the store keeps them.")

    @model_validator(mode="after")
    def _selects_something(self) -> ArtifactsModel:
        if self.model_fields_set - {"paths", "changed"} and not self.paths and not self.changed:
            raise ValueError("must name what to collect: paths, or changed: true")
        return self

    def value(self) -> spec.Artifacts:
        return spec.Artifacts(
            paths=tuple(self.paths),
            exclude=tuple(self.exclude),
            changed=self.changed,
            when=self.when,
            expire_in_seconds=self.expire_in,
        )


Artifacts = Annotated[ArtifactsModel, BeforeValidator(short_forms.named("paths")), OrShort(TEXT, TEXTS)]


class AfterModel(Strict):
    ids: Annotated[
        list[types.JobId],
        Field(min_length=1, max_length=1000),
        BeforeValidator(short_forms.one_or_many),
        OrShort(TEXT),
    ] = Field(description="Ids, or unique prefixes of ids, of the jobs to wait for.")
    when: types.AfterWhen = Field(
        default=spec.AfterWhen.OK, description="ok: when all succeeded; any: when all have ended."
    )


After = Annotated[AfterModel, BeforeValidator(short_forms.named("ids")), OrShort(TEXT, TEXTS)]


class RetryModel(Strict):
    max: Annotated[int, Field(ge=0, le=100)] = Field(description="Further attempts after the first.")
    when: Annotated[
        list[types.RetryWhen], Field(max_length=10), BeforeValidator(short_forms.one_or_many), OrShort(TEXT)
    ] = Field(default=[Outcome.LOST], description="Outcomes to try again after.")
    exit_codes: Annotated[
        list[Annotated[int, Field(ge=1, le=255)]],
        Field(max_length=255),
        BeforeValidator(short_forms.one_or_many),
        OrShort({"type": "integer"}),
    ] = Field(default=[], description="Exit codes to try again after.")

    def value(self) -> spec.Retry:
        return spec.Retry(max=self.max, when=tuple(self.when), exit_codes=tuple(self.exit_codes))


Retry = Annotated[RetryModel, BeforeValidator(short_forms.named("max")), OrShort({"type": "integer"})]
