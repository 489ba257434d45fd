"""A Containerfile as a whole: the arguments above its first FROM, and its stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dayfly.jobs.containerfile.instructions import Instruction, read_instruction
from dayfly.jobs.containerfile.lines import read_lines
from dayfly.jobs.errors import ContainerfileError


@dataclass(frozen=True, slots=True)
class Stage:
    """`base` is its FROM, whose image is still to be expanded; `name` is lower-case, or empty."""

    number: int
    name: str
    base: Instruction
    image: str
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, slots=True)
class Containerfile:
    """`arguments` are the ARGs that every FROM may use."""

    arguments: tuple[Instruction, ...]
    stages: tuple[Stage, ...]

    def stage(self, name: str, before: int | None = None) -> Stage | None:
        """The stage of that name or number, of those before the one given."""
        for stage in reversed(self.stages[:before]):
            if name.lower() == stage.name or name == str(stage.number):
                return stage
        return None


def read_containerfile(text: str) -> Containerfile:
    """Raises ContainerfileError, with the line, for the first thing that is wrong."""
    instructions = [read_instruction(line) for line in read_lines(text)]
    first = next((index for index, each in enumerate(instructions) if each.name == "FROM"), None)
    if first is None:
        raise ContainerfileError(1, "there is no FROM", "FROM IMAGE, or FROM scratch, begins a stage")
    arguments = instructions[:first]
    for each in arguments:
        if each.name != "ARG":
            raise each.line.fault("stands before the first FROM, where only ARG may")
    return Containerfile(tuple(arguments), tuple(_stages(instructions[first:])))


def _stages(instructions: Sequence[Instruction]) -> Iterator[Stage]:
    starts = [index for index, each in enumerate(instructions) if each.name == "FROM"]
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else len(instructions)
        yield _stage(number, instructions[start], instructions[start + 1 : end])


def _stage(number: int, base: Instruction, rest: Sequence[Instruction]) -> Stage:
    words = base.split()
    if len(words) == 3 and words[1].upper() == "AS":
        return Stage(number, words[2].lower(), base, words[0], tuple(rest))
    if len(words) != 1:
        raise base.line.fault(f"{base.text[:80]!r} is not IMAGE [AS NAME]")
    return Stage(number, "", base, words[0], tuple(rest))
