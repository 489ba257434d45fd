"""The types of the document's fields: a check from this room, and what the JSON Schema says of it.

Imported by model.py and schema.py only, since pydantic is slow to import.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema

from dayfly.jobs import names, network, paths, privileges, program, ranges, scalars, short_forms, spec
from dayfly.jobs.state import Outcome

_DURATION = {
    "type": ["number", "string"],
    "minimum": 0,
    "pattern": r"^[0-9][0-9.:wdhms]*$",
    "examples": ["90s", "5m", "1h30m", "00:20:00", 90],
}
_SIZE = {
    "type": ["integer", "string"],
    "minimum": 0,
    "pattern": r"^[0-9]+(\.[0-9]+)?([kKmMgGtTpPeE]([iI]?[bB])?|[bB])?$",
    "examples": ["512M", "2G", 1073741824],
}
_ABSOLUTE = Field(json_schema_extra={"pattern": "^/"})
_MIB = 1 << 20

RETRIED = (
    Outcome.FAILED,
    Outcome.SIGNALED,
    Outcome.TIMED_OUT,
    Outcome.OUT_OF_MEMORY,
    Outcome.DISK_FULL,
    Outcome.LOST,
)


class OrShort:
    """Says in the JSON Schema that a field has short forms beside its long one."""

    def __init__(self, *forms: dict[str, Any]) -> None:
        self.forms = forms

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [handler(core_schema), *self.forms]}


def check_script(text: str) -> str:
    names.check_text(text)
    if not text.strip():
        raise ValueError("must not be empty")
    return program.check_script(text)


def read_retried(value: object) -> Outcome:
    """An outcome that another attempt can change."""
    if isinstance(value, str) and value in RETRIED:
        return Outcome(value)
    raise ValueError(f"must be {', '.join(RETRIED[:-1])} or {RETRIED[-1]}, got {names.shown(value)}")


Text = Annotated[str, AfterValidator(names.check_text)]
Script = Annotated[str, AfterValidator(check_script)]
Line = Annotated[str, AfterValidator(names.check_line), Field(max_length=200)]
Argument = Annotated[str, AfterValidator(names.check_argument)]
EnvName = Annotated[str, AfterValidator(names.check_env_name)]
LabelName = Annotated[str, AfterValidator(names.check_label_name)]
LabelValue = Annotated[str, AfterValidator(names.check_label_value)]
QueueName = Annotated[
    str, AfterValidator(names.check_queue_name), Field(json_schema_extra={"pattern": "^[A-Za-z0-9_.-]{1,64}$"})
]
SecretName = Annotated[str, AfterValidator(names.check_secret_name)]
ServiceName = Annotated[
    str,
    AfterValidator(names.check_service_name),
    Field(json_schema_extra={"pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}),
]
JobId = Annotated[str, AfterValidator(names.check_job_id)]
HostId = Annotated[str, AfterValidator(names.check_host)]
FileMode = Annotated[
    int,
    BeforeValidator(scalars.read_file_mode),
    WithJsonSchema({"type": "string", "pattern": "^0?[0-7]{3}$", "examples": ["0400", "0440"]}),
]
Digest = Annotated[
    str, AfterValidator(names.check_digest), Field(json_schema_extra={"pattern": "^sha256:[0-9a-f]{64}$"})
]
Device = Annotated[str, AfterValidator(names.check_device)]
Image = Annotated[str, AfterValidator(names.check_image)]
User = Annotated[
    str,
    AfterValidator(names.check_user),
    BeforeValidator(scalars.read_user),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["1000:1000", "nobody"]}),
]

AbsolutePath = Annotated[str, AfterValidator(paths.check_path), _ABSOLUTE]
MountSource = Annotated[
    str, AfterValidator(paths.check_mount_source), Field(json_schema_extra={"pattern": "^(/|tmpfs$)"})
]
Workdir = Annotated[str, AfterValidator(paths.check_workdir), _ABSOLUTE]
Target = Annotated[str, AfterValidator(paths.check_target), _ABSOLUTE]
StatedPath = Annotated[str, AfterValidator(paths.check_directory)]
Pattern = Annotated[str, AfterValidator(paths.check_pattern)]

Cpus = Annotated[
    float,
    BeforeValidator(scalars.read_cpus),
    WithJsonSchema({"type": "number", "minimum": scalars.MIN_CPUS, "maximum": scalars.MAX_CPUS}),
]
Memory = Annotated[int, BeforeValidator(partial(scalars.read_size, minimum=6 * _MIB)), WithJsonSchema(_SIZE)]
Disk = Annotated[int, BeforeValidator(partial(scalars.read_size, minimum=_MIB)), WithJsonSchema(_SIZE)]
Shm = Annotated[int, BeforeValidator(partial(scalars.read_size, minimum=4096)), WithJsonSchema(_SIZE)]
Swap = Annotated[int, BeforeValidator(partial(scalars.read_size, minimum=0)), WithJsonSchema(_SIZE)]
Bps = Annotated[int, BeforeValidator(partial(scalars.read_size, minimum=1)), WithJsonSchema(_SIZE)]
Rate = Annotated[int, BeforeValidator(partial(scalars.read_size, minimum=1024)), WithJsonSchema(_SIZE)]
Iops = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]

Duration = Annotated[float, BeforeValidator(partial(scalars.read_duration, minimum=0.001)), WithJsonSchema(_DURATION)]
Pause = Annotated[float, BeforeValidator(partial(scalars.read_duration, minimum=0)), WithJsonSchema(_DURATION)]
Burst = Annotated[
    float, BeforeValidator(partial(scalars.read_duration, minimum=0.001, maximum=1)), WithJsonSchema(_DURATION)
]
Signal = Annotated[
    int,
    BeforeValidator(scalars.read_signal),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["SIGTERM", "INT", 15]}),
]

NetworkMode = Annotated[
    network.Network,
    BeforeValidator(partial(scalars.read_choice, kind=network.Network)),
    WithJsonSchema({"enum": list(network.Network)}),
]
SeccompMode = Annotated[
    privileges.Seccomp,
    BeforeValidator(partial(scalars.read_choice, kind=privileges.Seccomp)),
    WithJsonSchema({"enum": list(privileges.Seccomp)}),
]
Capabilities = Annotated[
    list[Annotated[str, AfterValidator(privileges.check_capability)]],
    Field(max_length=len(privileges.CAPABILITIES)),
    BeforeValidator(short_forms.one_or_many),
    OrShort({"type": "string"}),
]
DevicePath = Annotated[str, AfterValidator(paths.check_device_path), Field(json_schema_extra={"pattern": "^/dev/"})]
DevicePermissions = Annotated[
    str, AfterValidator(names.check_permissions), Field(json_schema_extra={"pattern": "^[rwm]{1,3}$"})
]
AddressRange = Annotated[
    str,
    AfterValidator(ranges.check_range),
    Field(max_length=50, json_schema_extra={"examples": [ranges.INTERNET, "10.1.0.0/16", "fd00:1::/64"]}),
]
KeepWhen = Annotated[
    spec.Keep, BeforeValidator(partial(scalars.read_choice, kind=spec.Keep)), WithJsonSchema({"enum": list(spec.Keep)})
]
PullWhen = Annotated[
    spec.PullPolicy,
    BeforeValidator(partial(scalars.read_choice, kind=spec.PullPolicy)),
    WithJsonSchema({"enum": list(spec.PullPolicy)}),
]
CollectWhen = Annotated[
    spec.ArtifactsWhen,
    BeforeValidator(partial(scalars.read_choice, kind=spec.ArtifactsWhen)),
    WithJsonSchema({"enum": list(spec.ArtifactsWhen)}),
]
AfterWhen = Annotated[
    spec.AfterWhen,
    BeforeValidator(partial(scalars.read_choice, kind=spec.AfterWhen, not_built=("each",))),
    WithJsonSchema({"enum": list(spec.AfterWhen)}),
]
RetryWhen = Annotated[Outcome, BeforeValidator(read_retried), WithJsonSchema({"enum": list(RETRIED)})]
