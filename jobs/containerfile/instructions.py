"""What each instruction of a Containerfile is: flags, form, words. Anything else is refused with its line."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dayfly.jobs.containerfile.lines import HereDocument, Line, without_heredocs
from dayfly.jobs.containerfile.words import WordError, split

_FLAGS: Mapping[str, frozenset[str]] = {
    "FROM": frozenset(("platform",)),
    "RUN": frozenset(("mount", "network")),
    "COPY": frozenset(("from", "chown", "chmod", "link", "exclude")),
    "ADD": frozenset(("chown", "chmod", "link", "checksum", "exclude")),
    "HEALTHCHECK": frozenset(("interval", "timeout", "start-period", "start-interval", "retries")),
}
_KNOWN = frozenset(
    (
        *("ADD", "ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "MAINTAINER"),
        *("ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
_MANY = frozenset(("mount", "exclude"))
_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(\S*))?(?:\s+|$)")
_JSON_FORMS = frozenset(("RUN", "CMD", "ENTRYPOINT", "SHELL", "COPY", "ADD", "VOLUME", "HEALTHCHECK"))


@dataclass(frozen=True, slots=True)
class Instruction:
    """`text` is what stands behind the flags; `words` its parts, if it was written as a JSON list."""

    line: Line
    text: str
    flags: Mapping[str, str] = field(default_factory=dict)
    repeated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return self.line.name

    @property
    def documents(self) -> tuple[HereDocument, ...]:
        return self.line.documents

    def split(self) -> list[str]:
        """Its words, as they are written. Raises ContainerfileError."""
        try:
            return split(self.text, self.line.escape)
        except WordError as error:
            raise self.line.fault(str(error)) from error


def read_instruction(line: Line) -> Instruction:
    """Raises ContainerfileError for what is not known, or not well-formed."""
    if line.name not in _KNOWN:
        raise line.fault("there is no such instruction", "the Dockerfile reference lists them")
    flags: dict[str, str] = {}
    repeated: dict[str, list[str]] = {}
    text = line.rest
    while line.name in _FLAGS and (found := _FLAG.match(text)):
        name, value = found[1], found[2]
        if name not in _FLAGS[line.name]:
            known = ", ".join(f"--{each}" for each in sorted(_FLAGS[line.name]))
            raise line.fault(f"--{name} is not supported", f"there are {known}")
        if name in _MANY:
            repeated.setdefault(name, []).append(value or "")
        elif name in flags:
            raise line.fault(f"--{name} is given twice")
        else:
            flags[name] = "true" if value is None else value
        text = text[found.end() :]
    text = text.strip()
    if not text and not line.documents:
        raise line.fault("nothing stands behind it")
    words = _json_words(line, text)
    return Instruction(line, text, flags, {name: tuple(each) for name, each in repeated.items()}, words)


def _json_words(line: Line, text: str) -> tuple[str, ...] | None:
    if line.name not in _JSON_FORMS:
        return None
    return json_list(without_heredocs(text))


def json_list(text: str) -> tuple[str, ...] | None:
    """A JSON list of strings; what only looks like one is the shell's, as Docker has it: None."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(words, list) or not all(isinstance(word, str) and "\0" not in word for word in words):
        return None
    return tuple(words)


def read_pairs(instruction: Instruction) -> list[tuple[str, str]]:
    """Of ENV, LABEL: NAME=value …, or the old NAME value. Values as they are written. Raises ContainerfileError."""
    words = instruction.split()
    if "=" not in words[0]:
        if len(words) < 2:
            raise instruction.line.fault(f"{words[0]} has no value", f"{instruction.name} {words[0]}=VALUE")
        return [(words[0], instruction.text[len(words[0]) :].strip())]
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise instruction.line.fault(f"{word[:60]!r} is not NAME=VALUE")
        pairs.append((name, value))
    return pairs
