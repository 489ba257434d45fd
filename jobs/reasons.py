"""pydantic's complaints in Dayfly's words: which field, and why, for the people who wrote the document."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from dayfly.jobs import build_model, model, mount_model, parts, service_model
from dayfly.jobs.document import Complaints, Place
from dayfly.jobs.errors import NotBuilt
from dayfly.jobs.names import shown
from dayfly.jobs.scalars import NotBuiltValueError

NOT_BUILT: frozenset[Place] = frozenset(
    {
        ("inputs",),
        ("resources",),
        ("cache",),
        ("concurrency",),
        ("tty",),
        ("setup",),
        ("memoize",),
        ("pipeline",),
        ("batch",),
        ("artifacts", "reports"),
    }
)

_MODELS: Mapping[Place, type[BaseModel]] = {
    (): model.JobModel,
    ("build",): build_model.BuildModel,
    ("limits",): parts.LimitsModel,
    ("limits", "io"): parts.IoModel,
    ("limits", "network"): parts.NetworkLimitModel,
    ("network",): parts.NetworkModel,
    ("mounts",): mount_model.MountModel,
    ("devices",): parts.DeviceModel,
    ("secrets",): parts.SecretModel,
    ("dir",): parts.DirectoryModel,
    ("stdin",): parts.StdinModel,
    ("services",): service_model.ServiceModel,
    ("services", "ready"): service_model.ReadyModel,
    ("services", "limits"): service_model.ServiceLimitsModel,
    ("services", "ports"): service_model.PortModel,
    ("artifacts",): parts.ArtifactsModel,
    ("after",): parts.AfterModel,
    ("retry",): parts.RetryModel,
}

_NAMED: frozenset[Place] = frozenset({("secrets",)})  # maps whose keys are the document's own

# What the same thing is called elsewhere (Docker, compose, GitLab, GitHub, Kubernetes).
_ELSEWHERE = {
    "args": "command",
    "cmd": "command",
    "cwd": "workdir",
    "depends_on": "after",
    "dockerfile": "file",
    "environment": "env",
    "mem": "memory",
    "needs": "after",
    "run": "script",
    "tags": "labels",
    "variables": "env",
    "volumes": "mounts",
    "working_dir": "workdir",
    "working_directory": "workdir",
}

_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "model_attributes_type": "a map",
}


def complain(complaints: Complaints, errors: list[ErrorDetails]) -> None:
    """Add each of a ValidationError's errors to `complaints`."""
    for error in errors:
        place = tuple(step for step in error["loc"] if step != "[key]")
        if error["type"] == "extra_forbidden":
            _complain_of_unknown(complaints, place)
        elif isinstance(_raised(error), NotBuiltValueError):
            complaints.add(place, str(_raised(error)), NotBuilt)
        else:
            complaints.add(place, _reason(error))


def _complain_of_unknown(complaints: Complaints, place: Place) -> None:
    if place in NOT_BUILT:
        complaints.add(place, "is not built yet", NotBuilt)
        return
    names = tuple(step for step in place[:-1] if isinstance(step, str))
    known = _MODELS[names[:1] if names[:1] in _NAMED else names].model_fields
    meant = _meant(str(place[-1]), list(known))
    complaints.add(place, f"unknown field; did you mean {meant}?" if meant else "unknown field")


def _meant(name: str, known: list[str]) -> str | None:
    import difflib

    lowered = name[:60].lower()
    if _ELSEWHERE.get(lowered) in known:
        return _ELSEWHERE[lowered]
    return next(iter(difflib.get_close_matches(lowered, known, n=1, cutoff=0.7)), None)


def _reason(error: ErrorDetails) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "value_error":
        return str(_raised(error))
    if kind == "string_type" and isinstance(value, int | float):
        return f'must be text, got the number or truth value {shown(value)}; in quotes it is text: "{shown(value)}"'
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, got {shown(value)}"
    if kind == "missing":
        return "is missing"
    if kind == "string_unicode":
        return "must not contain half of a surrogate pair"
    return _range_reason(kind, context, value) or f"{error['msg']}, got {shown(value)}"


def _range_reason(kind: str, context: Mapping[str, Any], value: object) -> str | None:
    match kind:
        case "greater_than_equal":
            return f"must be {context['ge']} or more, got {shown(value)}"
        case "less_than_equal":
            return f"must be {context['le']} or less, got {shown(value)}"
        case "less_than":
            return f"must be less than {context['lt']}, got {shown(value)}"
        case "too_short":
            return f"must have {context['min_length']} or more, got {_length(value)}"
        case "too_long" | "string_too_long":
            return f"must have {context['max_length']} or fewer, got {_length(value)}"
    return None


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | list | dict) else 1  # one: the short form of a list


def _raised(error: ErrorDetails) -> object:
    return error.get("ctx", {}).get("error")
