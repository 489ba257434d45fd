"""`.dockerignore`: what of the context no step sees (docs.docker.com, "Build context").

A line is a glob of paths from the context's root; what it matches is left out with all below it, a line with `!` takes
it in again, and the last one that matches decides.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import takewhile
from operator import eq

from dayfly.worker.patterns import expression


class Ignored:
    """What the lines of a file leave out."""

    def __init__(self, text: str = "") -> None:
        lines = (line.strip() for line in text.splitlines())
        self._rules = [_rule(line) for line in lines if line and not line.startswith("#")]
        self._exceptions = [_fixed_parts(rule.glob) for rule in self._rules if rule.is_exception]

    def leaves_out(self, path: str) -> bool:
        """Whether a path is left out, and all below it but for exceptions."""
        for rule in reversed(self._rules):
            if rule.pattern.match(path):
                return not rule.is_exception
        return False

    def may_hold_exceptions(self, path: str) -> bool:
        """Whether an exception could be about something below a directory that is left out."""
        parts = path.split("/")
        return any(all(map(eq, parts, fixed)) for fixed in self._exceptions)


def matches_any(globs: Iterable[str]) -> Callable[[str], bool]:
    """Whether a path matches one of these."""
    patterns = [re.compile(expression(_clean(glob)), re.DOTALL) for glob in globs]
    return lambda path: any(pattern.match(path) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class _Rule:
    glob: str
    pattern: re.Pattern[str]
    is_exception: bool


def _rule(line: str) -> _Rule:
    glob = _clean(line.removeprefix("!"))
    return _Rule(glob, re.compile(expression(glob), re.DOTALL), line.startswith("!"))


def _fixed_parts(glob: str) -> list[str]:
    """The parts of a path that a glob has before its first wildcard."""
    return list(takewhile(lambda part: not set(part) & set("*?[\\"), glob.split("/")))


def _clean(glob: str) -> str:
    parts = [part for part in glob.strip().split("/") if part not in ("", ".")]
    return "/".join(parts) or "**"
