"""From the text of a Containerfile to its instructions, as the Dockerfile reference has them (docs.docker.com).

A line that ends in the escape character goes on in the next one; comments and empty lines in between count for nothing.
Here-documents (`RUN <<EOF`, `COPY <<EOF /path`) follow the line that names them. `# escape=` and `# syntax=` stand
above everything else.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dayfly.jobs.errors import ContainerfileError

_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.*?)\s*")
_HEREDOC = re.compile(r"(?<![\w<])(\d*)<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_.]*)\3(?![\w'\"])")
_WITH_HEREDOCS = frozenset(("RUN", "COPY", "ADD"))
_MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class HereDocument:
    """`is_literal`: its name was quoted, so that nothing in it is expanded."""

    name: str
    content: str
    is_literal: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One instruction: its name in capitals, what stands behind it, and the number of the line where it begins."""

    name: str
    rest: str
    number: int
    escape: str = "\\"
    documents: tuple[HereDocument, ...] = ()

    def fault(self, why: str, remedy: str | None = None) -> ContainerfileError:
        return ContainerfileError(self.number, f"{self.name}: {why}", remedy)


def read_lines(text: str) -> list[Line]:
    """All instructions. Raises ContainerfileError."""
    if len(text) > _MAX_BYTES:
        raise ContainerfileError(1, f"the file has more than {_MAX_BYTES >> 20} MiB")
    return list(_Reader(text.removeprefix("\ufeff")).lines())


class _Reader:
    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._at = 0
        self._escape = "\\"
        self._directives()

    def lines(self) -> Iterator[Line]:
        while self._at < len(self._lines):
            number = self._at + 1
            logical = self._logical()
            if not logical:
                continue
            name, _, rest = logical.partition(" ") if " " in logical else _split_tab(logical)
            name = name.upper()
            if not name.isalpha():
                raise ContainerfileError(number, f"{logical[:60]!r} does not begin with an instruction")
            line = Line(name, rest.strip(), number, self._escape)
            documents = tuple(self._documents(line)) if name in _WITH_HEREDOCS else ()
            yield Line(name, line.rest, number, self._escape, documents)

    def _directives(self) -> None:
        while self._at < len(self._lines) and (found := _DIRECTIVE.fullmatch(self._lines[self._at].strip())):
            name, value = found[1].lower(), found[2]
            if name not in ("escape", "syntax", "check"):
                return  # a comment like any other
            if name == "escape":
                if value not in ("\\", "`"):
                    raise ContainerfileError(self._at + 1, f"escape={value!r}: it is either \\ or `")
                self._escape = value
            self._at += 1

    def _logical(self) -> str:
        """The next instruction with its continuations put together; empty for a comment or an empty line."""
        parts: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            self._at += 1
            stripped = line.strip()
            if stripped.startswith("#") or (parts and not stripped):
                if not parts:
                    return ""
                continue
            end = line.rstrip()
            if end.endswith(self._escape):
                parts.append(end[:-1] if parts else end[:-1].lstrip())
                continue
            parts.append(end if parts else stripped)
            break
        return "".join(parts).strip()

    def _documents(self, line: Line) -> Iterator[HereDocument]:
        if line.rest.startswith("["):
            return
        for found in _HEREDOC.finditer(line.rest):
            yield HereDocument(found[4], self._content(line, found[4], is_stripped=found[2] == "-"), bool(found[3]))

    def _content(self, line: Line, name: str, *, is_stripped: bool) -> str:
        content: list[str] = []
        while self._at < len(self._lines):
            text = self._lines[self._at].lstrip("\t") if is_stripped else self._lines[self._at]
            self._at += 1
            if text == name:
                return "".join(f"{each}\n" for each in content)
            content.append(text)
        raise line.fault(f"the here-document {name} has no end")


def _split_tab(logical: str) -> tuple[str, str, str]:
    return logical.partition("\t")


def without_heredocs(text: str) -> str:
    """What stands behind an instruction, its `<<NAME` taken out."""
    return _HEREDOC.sub("", text).strip()
