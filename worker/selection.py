"""From a job's artifact globs to regular expressions, so that a keeper needs no more than `re`."""

import functools
from collections.abc import Sequence

from dayfly.jobs.errors import SpecError
from dayfly.jobs.spec import DEFAULT_ARTIFACTS_WHEN, Artifacts, ArtifactsWhen
from dayfly.worker.patterns import expression
from dayfly.worker.record import ArtifactRules

_MAX_ALTERNATIVES = 1000
_MAX_LETTERS = 32 << 10  # of one pattern's alternatives: the agent, which has other jobs too, translates each
_MAX_PATTERN = 4096  # PATH_MAX
_MAX_EXPRESSION = 64 << 10  # of one pattern, all alternatives of its braces together: what `re` does at one time
_MAX_EXPRESSIONS = 1 << 20
_MAX_SETS = 4096  # of all alternatives of all patterns: each looks for its end
_WILD = frozenset("*?[]{}()!@+|\\")
_WORKSPACE = "workspace"


def artifact_rules(artifacts: Artifacts, when: ArtifactsWhen = DEFAULT_ARTIFACTS_WHEN) -> ArtifactRules | None:
    """None when the job wants nothing kept. A pattern that names a directory takes all that is in it.

    `when`: for a job that does not state it. Raises SpecError for patterns whose braces mean too many.
    """
    if not artifacts.is_wanted:
        return None
    return ArtifactRules(
        include=_expressions(artifacts.paths, "paths"),
        exclude=_expressions(artifacts.exclude, "exclude"),
        within=tuple(_literal_start(_normal(pattern)) for pattern in artifacts.paths),
        labels=artifacts.paths,
        changed=artifacts.changed,
        when=(artifacts.when or when).value,
    )


def _expressions(patterns: Sequence[str], field: str) -> tuple[str, ...]:
    found: list[str] = []
    left, sets_left = _MAX_EXPRESSIONS, _MAX_SETS
    for number, pattern in enumerate(patterns):
        globs = _alternatives(_normal(pattern)) if len(pattern) <= _MAX_PATTERN else None
        sets_left -= sum(glob.count("[") for glob in globs or ())
        each = _expression(pattern) if globs is not None and sets_left >= 0 else None
        if each is None or len(each) > _MAX_EXPRESSION:
            raise SpecError(f"artifacts.{field}[{number}]", "has too many or too long alternatives in its braces")
        left -= len(each)
        if left < 0:
            raise SpecError(f"artifacts.{field}[{number}]", "is too much, with the patterns before it")
        found.append(each)
    return tuple(found)


@functools.lru_cache(maxsize=256)
def _expression(pattern: str) -> str:
    normal = _normal(pattern)
    # A relative pattern is about /workspace alone: `**` must not reach the absolute paths of the rest of the root.
    kind = "(?=/)" if normal.startswith("/") else "(?!/)"
    return kind + "(?:" + "|".join(expression(glob) for glob in _alternatives(normal) or ()) + ")"


@functools.lru_cache(maxsize=256)
def _alternatives(pattern: str) -> tuple[str, ...] | None:
    """What its braces mean; None where that is too much, or too deep."""
    import bracex

    globs: list[str] = []
    letters = 0
    try:
        for glob in bracex.iexpand(pattern, keep_escapes=True, limit=_MAX_ALTERNATIVES):
            globs.append(glob)
            letters += len(glob)
            if letters > _MAX_LETTERS:
                return None
    except (bracex.ExpansionLimitException, RecursionError):  # it descends with each brace
        return None
    return tuple(globs)


def _normal(pattern: str) -> str:
    """Relative where it lies in /workspace; no slash at its end, no part that is empty or a dot. All of it is `**`."""
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if not pattern.startswith("/"):
        return "/".join(parts) or "**"
    if parts[:1] == [_WORKSPACE]:
        return "/".join(parts[1:]) or "**"
    return "/" + "/".join(parts)


def _literal_start(pattern: str) -> str:
    parts = pattern.split("/")
    literal = next((number for number, part in enumerate(parts) if _WILD & set(part)), len(parts))
    start = "/".join(parts[:literal])
    return "/" if pattern.startswith("/") and not start else start
