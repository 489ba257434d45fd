"""Whether keys are configured, and whether their files are safe to use."""

from collections.abc import Iterator

from dayfly.config import Settings
from dayfly.doctor_check import Check, missing, ok
from dayfly.jobs.errors import DayflyError
from dayfly.key_uses import USES, KeyUse


def examine(settings: Settings) -> Iterator[Check]:
    """One line a use: which keys, or why one of them is not used."""
    for use in USES:
        yield _use(use, settings)


def _use(use: KeyUse, settings: Settings) -> Check:
    from dayfly.queue.key_files import read_keys

    paths = use.paths(settings)
    if not paths:
        return ok(use.title, use.without)
    try:
        keys = read_keys(paths)
        ids = ", ".join(f"{key.kind} {key.id}" for key in keys)
    except DayflyError as error:
        return missing(use.title, error.message, error.remedy or "")
    if not keys:
        shown = ", ".join(str(path) for path in paths)
        return missing(use.title, f"no key in {shown}", "`dayfly key generate` makes one")
    return ok(use.title, f"{ids}; nobody else can change their files")
