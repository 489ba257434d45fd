"""What somebody wants built."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dayfly.jobs.spec import DEFAULT_PULL, PullPolicy


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """`context` is the directory that COPY copies from; `secrets` are files by id; `pull`: when registries are asked.

    `target` names the stage to end with, "" the last; `name` the image, "" none but its digest.
    """

    text: str
    context: Path
    name: str = ""
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, Path] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    network: str = "auto"
    has_cache: bool = True
    pull: PullPolicy = DEFAULT_PULL
