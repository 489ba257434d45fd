"""The keys that a worker was given: whose signatures it believes."""

from dayfly.jobs.errors import ConfigError
from dayfly.jobs.signatures import TrustedKeys
from dayfly.queue.key_files import read_keys
from dayfly.worker.settings import WorkerSettings


def trusted_keys(settings: WorkerSettings) -> TrustedKeys | None:
    """Whose jobs this worker runs; None: anybody's. Raises DayflyError for a key that it must not use."""
    if not settings.trusted_keys:
        return None
    keys = read_keys(settings.trusted_keys)
    if not keys:
        shown = ", ".join(str(path) for path in settings.trusted_keys)
        raise ConfigError("[worker] trusted_keys", None, f"there is no key in {shown}, so no job could ever run")
    try:
        return TrustedKeys(keys)
    except ValueError as error:
        raise ConfigError("[worker] trusted_keys", None, str(error)) from error
