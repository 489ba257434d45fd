"""`.dayflyignore`: what of a directory a job does not see, with gitignore's syntax and meaning.

Only the one file in the top directory counts. As in git the last rule that matches decides, and nothing below a
directory that is left out can be taken in again. Names are bytes, as git compares them.

The file is somebody's who may wish us ill: what it may cost is bounded, its own translation included.
"""

import errno
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from dayfly.runtime.syscalls import RESOLVE_ONE_TREE, openat2

IGNORE_FILE = ".dayflyignore"
_MAX_BYTES = 1 << 20
_MAX_LINE = 4096  # PATH_MAX: a longer one would match nothing
_MAX_DEPTH = 256
_MAX_RULES = 10_000
_LONGEST_SECONDS = 10.0
_STAR = b"[^/]*?"
_CROSSING = b"(?:.*?/)??"
_CLASSES: dict[bytes, Callable[[bytes], bool]] = {
    b"alpha": bytes.isalpha,
    b"digit": bytes.isdigit,
    b"alnum": bytes.isalnum,
    b"lower": bytes.islower,
    b"upper": bytes.isupper,
    b"space": bytes.isspace,
    b"blank": lambda char: char in b" \t",
    b"punct": lambda char: char.isascii() and char.decode().isprintable() and not char.isalnum() and char != b" ",
    b"xdigit": lambda char: char in b"0123456789abcdefABCDEF",
    b"cntrl": lambda char: char < b" " or char == b"\x7f",
    b"print": lambda char: b" " <= char < b"\x7f",
    b"graph": lambda char: b" " < char < b"\x7f",
}


class IgnoreError(Exception):
    """The rules cannot be applied: they, or the tree, are too much. Its text completes "… , since"."""


@dataclass(frozen=True, slots=True)
class _Rule:
    pattern: re.Pattern[bytes]
    is_exception: bool
    directories_only: bool
    whole_path: bool


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory that is being walked: open at `fd`, its path with a slash, and what is left of its entries."""

    fd: int
    prefix: bytes
    entries: Iterator[tuple[bytes, bool]]


class IgnoreRules:
    """The rules of one `.dayflyignore`."""

    def __init__(self, rules: tuple[_Rule, ...]) -> None:
        self._rules = rules

    @classmethod
    def parse(cls, text: bytes, deadline: float = math.inf) -> Self:
        """Raises IgnoreError for more than could be applied to a tree by then (time.monotonic())."""
        lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        if len(lines) > _MAX_RULES or max(map(len, lines)) > _MAX_LINE:
            most = f"{_MAX_RULES} lines, or one of more than {_MAX_LINE} letters"
            raise IgnoreError(f"its {IGNORE_FILE} has more than {most}")
        return cls(tuple(rule for line in lines if _in_time(deadline) and (rule := _read_rule(line)) is not None))

    @classmethod
    def of(cls, directory: int, deadline: float = math.inf) -> Self:
        """The rules in the directory open at that descriptor; none when it has no such regular file.

        Raises IgnoreError.
        """
        try:
            fd = os.open(IGNORE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        except OSError:
            return cls(())
        with open(fd, "rb") as file:
            is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
            return cls.parse(file.read(_MAX_BYTES), deadline) if is_regular else cls(())

    def __bool__(self) -> bool:
        return bool(self._rules)

    def matches(self, path: bytes, *, is_directory: bool) -> bool:
        """Whether the path (relative to the top, its parents not left out) is left out."""
        name = path.rpartition(b"/")[2]
        for rule in reversed(self._rules):
            if rule.directories_only and not is_directory:
                continue
            if rule.pattern.fullmatch(path if rule.whole_path else name):
                return not rule.is_exception
        return False


def ignored(top: int) -> Iterator[str]:
    """The paths in the directory open at `top` that its `.dayflyignore` leaves out; of a whole directory only its own.

    What is mounted below is not looked into. Raises IgnoreError where that takes long, OSError.
    """
    deadline = time.monotonic() + _LONGEST_SECONDS
    rules = IgnoreRules.of(top, deadline)
    return map(os.fsdecode, _ignored(top, rules, deadline)) if rules else iter(())


def _ignored(top: int, rules: IgnoreRules, deadline: float) -> Iterator[bytes]:
    levels = [_Level(os.dup(top), b"", _listed(top))]
    try:
        while levels:
            level = levels[-1]
            name, is_directory = next(level.entries, (None, False))
            if name is None:
                os.close(levels.pop().fd)
            elif rules.matches(level.prefix + name, is_directory=is_directory):
                yield level.prefix + name
            elif is_directory and (child := _open_child(level, name)) is not None:
                levels.append(child)
                if len(levels) > _MAX_DEPTH:
                    raise IgnoreError(f"its directories are nested more than {_MAX_DEPTH} levels deep")
            _in_time(deadline)
    finally:
        for level in levels:
            os.close(level.fd)


def _in_time(deadline: float) -> bool:
    """True, or else IgnoreError."""
    if time.monotonic() > deadline:
        raise IgnoreError(f"to apply its {IGNORE_FILE} takes more than {_LONGEST_SECONDS:g} s")
    return True


def _open_child(level: _Level, name: bytes) -> _Level | None:
    """None for one that is gone since it was listed, or that something is mounted on."""
    try:
        fd = openat2(level.fd, name, os.O_RDONLY | os.O_DIRECTORY, resolve=RESOLVE_ONE_TREE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            return None
        raise
    try:
        return _Level(fd, level.prefix + name + b"/", _listed(fd))
    except OSError:
        os.close(fd)
        raise


def _listed(fd: int) -> Iterator[tuple[bytes, bool]]:
    """As they come: a directory of millions is not held."""
    with os.scandir(fd) as entries:
        for entry in entries:
            yield os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)


def _read_rule(line: bytes) -> _Rule | None:
    line = _without_trailing_spaces(line.removesuffix(b"\r"))
    if not line or line.startswith(b"#"):
        return None
    is_exception = line.startswith(b"!")
    line = line[1:] if is_exception else line
    directories_only = line.endswith(b"/")
    line = line[:-1] if directories_only else line
    whole_path = b"/" in line
    translated = _translate(line.removeprefix(b"/")) if line else None
    if translated is None:
        return None
    return _Rule(re.compile(translated, re.DOTALL), is_exception, directories_only, whole_path)


def _without_trailing_spaces(line: bytes) -> bytes:
    kept = line.rstrip(b" ")
    backslashes = len(kept) - len(kept.rstrip(b"\\"))
    return line[: len(kept) + 1] if backslashes % 2 and len(kept) < len(line) else kept


def _translate(pattern: bytes) -> bytes | None:
    """git's wildmatch as a regular expression; None for a pattern that matches nothing (`a[`, `a\\`)."""
    parts = _parts(pattern)
    if parts is None:
        return None
    chunks = [[b"".join(run) for run in _split(chunk, _STAR)] for chunk in _split(parts, _CROSSING)]
    return _atomically([_atomically(runs, _STAR) for runs in chunks], _CROSSING)


def _atomically(runs: list[bytes], wildcard: bytes) -> bytes:
    """`runs` with a wildcard between each two. What is behind one is taken where it is first found, and that stands.

    Whatever a later place would leave for the rest of the pattern, the first one leaves too. Without these groups the
    cost doubles with every star of `*a*a*a*b`; so it is a name's length times the pattern's.
    """
    first, *others = runs
    if not others:
        return first
    return first + b"".join(b"(?>" + wildcard + run + b")" for run in others[:-1]) + wildcard + others[-1]


def _split(parts: list[bytes], wildcard: bytes) -> list[list[bytes]]:
    runs: list[list[bytes]] = [[]]
    for part in parts:
        if part == wildcard:
            runs.append([])
        else:
            runs[-1].append(part)
    return runs


def _parts(pattern: bytes) -> list[bytes] | None:
    """A regular expression for each of its letters and wildcards."""
    parts: list[bytes] = []
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        if char == b"*":
            end = at + len(pattern[at:]) - len(pattern[at:].lstrip(b"*"))
            part, at = _stars(pattern, at, end)
        elif char == b"?":
            part, at = b"[^/]", at + 1
        elif char == b"[":
            found = _bracket(pattern, at + 1)
            if found is None:
                return None
            part, at = found
        elif char == b"\\":
            if at + 1 == len(pattern):
                return None
            part, at = re.escape(pattern[at + 1 : at + 2]), at + 2
        else:
            part, at = re.escape(char), at + 1
        parts.append(part)
    return parts


def _stars(pattern: bytes, at: int, end: int) -> tuple[bytes, int]:
    """`**` as a whole part of a path crosses slashes; any other run of stars is one star."""
    begins = at == 0 or pattern[at - 1 : at] == b"/"
    if end - at == 2 and begins and pattern[end : end + 1] == b"/":
        return _CROSSING, end + 1
    if end - at == 2 and begins and end == len(pattern):
        return b".*", end
    return _STAR, end


def _bracket(pattern: bytes, at: int) -> tuple[bytes, int] | None:
    """`[a-z]`, `[!…]`, `[^…]`, `[[:alpha:]]`, from behind the opening bracket; None when it is not closed."""
    is_negated = pattern[at : at + 1] in (b"!", b"^")
    at += is_negated
    members: set[int] = set()
    first = True
    while first or pattern[at : at + 1] != b"]":
        first = False
        if pattern.startswith(b"[:", at):
            end = pattern.find(b":]", at)
            test = _CLASSES.get(pattern[at + 2 : end])
            if end < 0 or test is None:
                return None
            members.update(code for code in range(128) if test(bytes([code])))
            at = end + 2
            continue
        low, at = _literal(pattern, at)
        high = low
        if pattern[at : at + 1] == b"-" and pattern[at + 1 : at + 2] not in (b"]", b""):
            high, at = _literal(pattern, at + 1)
        if low is None or high is None:
            return None
        members.update(range(low, high + 1))
    chosen = sorted((set(range(256)) - members if is_negated else members) - {ord("/")})
    return b"[" + b"".join(_ranges(chosen)) + b"]" if chosen else b"(?!)", at + 1


def _ranges(codes: list[int]) -> Iterator[bytes]:
    """Neighbours as one range: a file of negated sets would become a thousand times as long."""
    first = codes[0]
    for code, following in pairwise([*codes, -1]):
        if following != code + 1:
            yield b"\\x%02x-\\x%02x" % (first, code)
            first = following


def _literal(pattern: bytes, at: int) -> tuple[int | None, int]:
    if pattern[at : at + 1] == b"\\":
        at += 1
    return (pattern[at], at + 1) if at < len(pattern) else (None, at)
