"""From a job's artifact globs to regular expressions, so that a keeper needs neither wcmatch nor its imports."""

import functools

from dayfly.jobs.spec import DEFAULT_ARTIFACTS_WHEN, Artifacts, ArtifactsWhen
from dayfly.worker.record import ArtifactRules

_WILD = frozenset("*?[]{}()!@+|\\")
_WORKSPACE = "workspace"


def artifact_rules(artifacts: Artifacts, when: ArtifactsWhen = DEFAULT_ARTIFACTS_WHEN) -> ArtifactRules | None:
    """None when the job wants nothing kept. A pattern that names a directory takes all that is in it.

    `when`: for a job that does not state it.
    """
    if not artifacts.is_wanted:
        return None
    return ArtifactRules(
        include=tuple(_expression(pattern) for pattern in artifacts.paths),
        exclude=tuple(_expression(pattern) for pattern in artifacts.exclude),
        within=tuple(_literal_start(_normal(pattern)) for pattern in artifacts.paths),
        labels=artifacts.paths,
        changed=artifacts.changed,
        when=(artifacts.when or when).value,
    )


@functools.lru_cache(maxsize=256)
def _expression(pattern: str) -> str:
    from wcmatch import glob

    flags = glob.GLOBSTAR | glob.DOTGLOB | glob.BRACE | glob.FORCEUNIX
    normal = _normal(pattern)
    translated: list[str] = []
    for each in (normal, f"{normal.rstrip('/')}/**"):
        translated += glob.translate(each, flags=flags)[0]
    # A relative pattern is about /workspace alone: `**` must not reach the absolute paths of the rest of the root.
    kind = "(?=/)" if normal.startswith("/") else "(?!/)"
    return kind + "(?:" + "|".join(translated) + ")"


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
