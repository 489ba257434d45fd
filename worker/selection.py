"""From a job's artifact globs to regular expressions, so that a keeper needs neither wcmatch nor its imports."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from dayfly.jobs.errors import SpecError
from dayfly.jobs.spec import DEFAULT_ARTIFACTS_WHEN, Artifacts, ArtifactsWhen
from dayfly.worker.record import ArtifactRules

_WILD = frozenset("*?[]{}()!@+|\\")
_WORKSPACE = "workspace"
_MOST_ALTERNATIVES = 10_000  # that braces and ranges make of all patterns of a job: 40 µs each


@dataclass(frozen=True, slots=True)
class _Expression:
    text: str
    alternatives: int


def artifact_rules(artifacts: Artifacts, when: ArtifactsWhen = DEFAULT_ARTIFACTS_WHEN) -> ArtifactRules | None:
    """None when the job wants nothing kept. A pattern that names a directory takes all that is in it.

    `when`: for a job that does not state it. Raises SpecError for patterns that stand for too many.
    """
    if not artifacts.is_wanted:
        return None
    include = _expressions("artifacts.paths", artifacts.paths, _MOST_ALTERNATIVES)
    left = _MOST_ALTERNATIVES - sum(each.alternatives for each in include)
    exclude = _expressions("artifacts.exclude", artifacts.exclude, left)
    return ArtifactRules(
        include=tuple(each.text for each in include),
        exclude=tuple(each.text for each in exclude),
        within=tuple(_literal_start(_normal(pattern)) for pattern in artifacts.paths),
        labels=artifacts.paths,
        changed=artifacts.changed,
        when=(artifacts.when or when).value,
    )


def _expressions(path: str, patterns: Sequence[str], most: int) -> list[_Expression]:
    found: list[_Expression] = []
    for number, pattern in enumerate(patterns):
        place = f"{path}[{number}]"
        try:
            found.append(_expression(pattern))
        except Exception as error:  # wcmatch does not say what it raises: PatternLimitException is in no public module
            raise SpecError(place, f"cannot be read as a glob: {error or type(error).__name__}") from error
        most -= found[-1].alternatives
        if most < 0:
            raise SpecError(place, f"with those before it stands for more than {_MOST_ALTERNATIVES} globs")
    return found


@functools.lru_cache(maxsize=256)
def _expression(pattern: str) -> _Expression:
    from wcmatch import glob

    flags = glob.GLOBSTAR | glob.DOTGLOB | glob.BRACE | glob.FORCEUNIX
    normal = _normal(pattern)
    translated: list[str] = []
    for each in (normal, f"{normal.rstrip('/')}/**"):
        translated += glob.translate(each, flags=flags)[0]
    # A relative pattern is about /workspace alone: `**` must not reach the absolute paths of the rest of the root.
    kind = "(?=/)" if normal.startswith("/") else "(?!/)"
    return _Expression(kind + "(?:" + "|".join(translated) + ")", len(translated))


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
