"""The mounts of a job document: each field, its short form and its words in the schema.

As model.py, to which it belongs, imported behind the door only.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dayfly.jobs import field_types as types
from dayfly.jobs import short_forms
from dayfly.jobs.field_types import OrShort
from dayfly.jobs.mounts import TMPFS, Mount
from dayfly.jobs.names import shown
from dayfly.jobs.parts import Strict
from dayfly.jobs.text_fields import TEXT


class MountModel(Strict):
    source: types.MountSource = Field(description="Absolute path on the worker's host; or tmpfs, memory of the job's.")
    target: types.Target = Field(description="Absolute path in the container.")
    writable: bool = Field(default=False, description="Whether the job may write to the source itself.")
    size: types.Shm | None = Field(default=None, description="What a tmpfs may hold. Default: what memory allows.")

    @model_validator(mode="after")
    def _is_one_kind(self) -> MountModel:
        if self.size is not None and self.source != TMPFS:
            raise ValueError("size is for a tmpfs")
        if self.writable and self.source == TMPFS:
            raise ValueError("a tmpfs is writable: leave writable out")
        return self

    def value(self) -> Mount:
        return Mount(self.source, self.target, self.writable, self.size)


def _with_own_targets(mounts: list[MountModel]) -> list[MountModel]:
    seen: set[str] = set()
    for each in mounts:
        if each.target in seen:
            raise ValueError(f"must not have two mounts at {shown(each.target)}")
        seen.add(each.target)
    return mounts


Mounts = Annotated[
    list[Annotated[MountModel, BeforeValidator(short_forms.mount), OrShort(TEXT)]],
    Field(max_length=100),
    AfterValidator(_with_own_targets),
    BeforeValidator(short_forms.one_or_many),
    OrShort(TEXT),
]
