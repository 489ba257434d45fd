"""`RUN --mount=…`: what a step sees and does not keep (docs.docker.com, "RUN --mount")."""

from collections.abc import Mapping
from dataclasses import dataclass

from dayfly.jobs.containerfile.instructions import Instruction

_NAMES: Mapping[str, frozenset[str]] = {
    "bind": frozenset(("source", "target", "from", "rw", "ro")),
    "cache": frozenset(("id", "target", "sharing", "mode", "uid", "gid", "ro")),
    "tmpfs": frozenset(("target", "size")),
    "secret": frozenset(("id", "target", "required", "mode", "uid", "gid")),
}
_OTHER_NAMES = {"src": "source", "dst": "target", "destination": "target", "readonly": "ro", "readwrite": "rw"}


@dataclass(frozen=True, slots=True)
class StepMount:
    """`options` have their long names; a switch has "true"."""

    kind: str
    options: Mapping[str, str]

    @property
    def target(self) -> str:
        return self.options.get("target", "")

    def is_on(self, name: str) -> bool:
        return self.options.get(name, "false").lower() in ("true", "1")


def read_mount(instruction: Instruction, text: str) -> StepMount:
    """Raises ContainerfileError."""
    options: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        options[_OTHER_NAMES.get(name, name)] = value if equals else "true"
    kind = options.pop("type", "bind")
    if kind not in _NAMES:
        known = ", ".join(sorted(_NAMES))
        raise instruction.line.fault(f"--mount of type {kind[:40]!r} is not supported", f"there are {known}")
    for name in options:
        if name not in _NAMES[kind]:
            raise instruction.line.fault(f"--mount=type={kind}: there is no {name[:40]!r}")
    if kind != "secret" and not options.get("target"):
        raise instruction.line.fault(f"--mount=type={kind} needs a target")
    if options.get("sharing", "shared") not in ("shared", "private", "locked"):
        raise instruction.line.fault("--mount=type=cache: sharing is shared, private or locked")
    if kind == "secret" and not options.get("id") and not options.get("target"):
        raise instruction.line.fault("--mount=type=secret needs an id")
    return StepMount(kind, options)
