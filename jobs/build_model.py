"""The build of a job document: each field, its short form and its words in the schema.

As model.py, to which it belongs, imported behind the door only.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from dayfly.jobs import field_types as types
from dayfly.jobs import short_forms
from dayfly.jobs.build import Build
from dayfly.jobs.field_types import OrShort
from dayfly.jobs.names import shown
from dayfly.jobs.parts import Strict
from dayfly.jobs.text_fields import TEXT, TEXTS, Annotations, Env

_LAST_SECOND = 253_402_300_799  # of the year 9999


def _below(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"must be a path below the directory, got {shown(path)}")
    return path


_Pairs = Annotated[Annotations, Field(max_length=1000)]


class BuildModel(Strict):
    name: types.Image | None = Field(default=None, description="What to call the image; as far as its operator allows.")
    file: Annotated[types.StatedPath, AfterValidator(_below)] | None = Field(
        default=None, description="The Containerfile, a path in dir. Default: Containerfile, else Dockerfile."
    )
    containerfile: types.Text | None = Field(default=None, description="The Containerfile's text, in place of file.")
    target: types.Line = Field(default="", description="The stage to end with. Default: the last one.")
    args: Env = Field(default={}, description="Values of ARGs.")
    labels: Annotated[_Pairs, OrShort(TEXT, TEXTS)] = Field(default={}, description="Labels of the image.")
    use_cache: bool = Field(default=True, description="Whether steps that were taken before are not taken again.")
    push: bool = Field(default=False, description="Whether it is sent to the registry of its name.")
    epoch: Annotated[int, Field(ge=0, le=_LAST_SECOND)] | None = Field(
        default=None, description="SOURCE_DATE_EPOCH in Unix seconds: no time in the image is later."
    )

    @model_validator(mode="after")
    def _is_plain(self) -> BuildModel:
        if self.file is not None and self.containerfile is not None:
            raise ValueError("must not have both file and containerfile")
        if self.push and self.name is None:
            raise ValueError("must have a name to push")
        return self

    def value(self) -> Build:
        return Build(
            name=self.name or "",
            file=self.file,
            containerfile=self.containerfile,
            target=self.target,
            args=self.args,
            labels=self.labels,
            use_cache=self.use_cache,
            push=self.push,
            epoch=self.epoch,
        )


BuildField = Annotated[BuildModel, BeforeValidator(short_forms.named("name")), OrShort(TEXT)]
