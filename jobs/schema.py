"""The JSON Schema of a job document, for editors and validators (`dayfly schema`).

It says what every field may look like, short forms included. What only a program can check (a pattern with `..`, a
size below its minimum, script beside command) is the door's to refuse: what the schema refuses the door refuses too.
"""

from __future__ import annotations

from typing import Any

from dayfly.jobs.model import JobModel

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) as plain JSON values."""
    generated = _tidy(JobModel.model_json_schema())
    definitions = {name.removesuffix("Model"): _titleless(each) for name, each in generated.pop("$defs").items()}
    return {
        "$schema": DIALECT,
        "title": "Dayfly job",
        "description": "One job. Sizes: 512M, 2G (powers of 1024); durations: 90s, 5m, 1h30m, 00:20:00.",
        **_titleless(generated),
        "not": {"required": ["script"], "anyOf": [{"required": ["command"]}, {"required": ["entrypoint"]}]},
        "$defs": definitions,
    }


def _titleless(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _tidy(schema: Any) -> Any:
    """Without titles that repeat the name, without null (which no document may hold) and defaults that are null."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema if item != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema.replace("Model", "") if isinstance(schema, str) and schema.startswith("#/$defs/") else schema
    tidy = {key: _tidy(value) for key, value in schema.items() if not _is_noise(key, value)}
    choices = tidy.pop("anyOf", None)
    if choices is None:
        return tidy
    flat = [inner for choice in choices for inner in (choice["anyOf"] if set(choice) == {"anyOf"} else [choice])]
    return {**tidy, **flat[0]} if len(flat) == 1 else {**tidy, "anyOf": flat}


def _is_noise(key: str, value: Any) -> bool:
    if key == "default":
        return value is None or isinstance(value, dict | list)
    return key == "title" and isinstance(value, str)
