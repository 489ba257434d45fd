"""The keys that a worker was given: whose signatures it believes, and what it opens secrets with."""

from dayfly.jobs.errors import ConfigError
from dayfly.jobs.key_text import Key, KeyKind
from dayfly.jobs.signatures import TrustedKeys
from dayfly.queue.key_files import read_keys
from dayfly.worker.settings import WorkerSettings, default_secret_key


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


def secret_keys(settings: WorkerSettings) -> tuple[Key, ...]:
    """What this worker opens secrets with, the old ones of a rotation too. Raises DayflyError as above."""
    own = default_secret_key(settings.home)
    keys = read_keys(settings.secret_keys or ([own] if own.exists() else ()))
    if wrong := [key.kind for key in keys if key.kind is not KeyKind.X25519]:
        raise ConfigError("[worker] secret_keys", None, f"secrets are opened with {KeyKind.X25519}, not {wrong[0]}")
    return keys
