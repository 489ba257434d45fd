"""A build as a job: what `dayfly image build` would be told, as a document has it.

A worker builds it without a container of its own; each RUN is a job of that worker. As spec.py: frozen values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dayfly.jobs.frozen import FrozenMap

BUILDS_LABEL = "dayfly.builds"
"""What a worker that may build is told by, and what a build asks for."""

WORKER_LABEL = "dayfly.worker"
"""What every worker has, with a digest of its name as the value: a step of a build asks for the one that builds."""

STEP = "dayfly.step"
"""The annotation of a build's step: its disk, which is kept, is the build's to take away."""

_EMPTY: Mapping[str, str] = FrozenMap()


@dataclass(frozen=True, slots=True)
class Build:
    """`file` is a path in the job's directory, `containerfile` the text itself; with neither, the directory's own.

    `name` is the image's, "" none but its digest; `target` the last stage, "" the file's last. `push`: to the registry
    of its name. `epoch`: SOURCE_DATE_EPOCH (reproducible-builds.org), Unix seconds.
    """

    name: str = ""
    file: str | None = None
    containerfile: str | None = None
    target: str = ""
    args: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    labels: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    use_cache: bool = True
    push: bool = False
    epoch: int | None = None

    def __post_init__(self) -> None:
        for name in ("args", "labels"):
            object.__setattr__(self, name, FrozenMap(getattr(self, name)))

    def to_document(self) -> dict[str, Any]:
        """The canonical long form."""
        fields = {
            "name": self.name or None,
            "file": self.file,
            "containerfile": self.containerfile,
            "target": self.target or None,
            "args": dict(self.args) or None,
            "labels": dict(self.labels) or None,
            "use_cache": None if self.use_cache else False,
            "push": self.push or None,
            "epoch": self.epoch,
        }
        return {key: value for key, value in fields.items() if value is not None}
