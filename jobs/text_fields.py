"""Fields of a document that are lists or maps of text, each with its short forms: commands, variables, labels, notes.

As model.py, imported behind the door only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from dayfly.jobs import field_types as types
from dayfly.jobs import short_forms
from dayfly.jobs.field_types import OrShort
from dayfly.jobs.names import MAX_ARGUMENT_BYTES, shown

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": {"type": "string"}}


def _fits_execve(env: dict[str, str]) -> dict[str, str]:
    for name, value in env.items():
        if len(name.encode()) + len(value.encode()) >= MAX_ARGUMENT_BYTES:
            raise ValueError(f"{shown(name)} is longer than the {MAX_ARGUMENT_BYTES} bytes that the kernel passes on")
    return env


def _names_a_program(words: Sequence[str]) -> Sequence[str]:
    if words and not words[0]:
        raise ValueError("must not begin with an empty word: it is the program's name")
    return words


Words = Annotated[
    list[types.Argument], AfterValidator(_names_a_program), BeforeValidator(short_forms.words), OrShort(TEXT)
]
Env = Annotated[
    dict[types.EnvName, types.Text],
    AfterValidator(_fits_execve),
    BeforeValidator(short_forms.pairs),
    OrShort(TEXT, TEXTS),
]
Labels = Annotated[
    dict[types.LabelName, types.LabelValue],
    Field(max_length=16),
    BeforeValidator(short_forms.labels),
    OrShort(TEXT, TEXTS),
]
Annotations = Annotated[
    dict[types.Line, types.Text], Field(max_length=100), BeforeValidator(short_forms.pairs), OrShort(TEXT, TEXTS)
]
