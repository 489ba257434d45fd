"""What a client signs its jobs with, and whose signatures it believes, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dayfly.config import Settings, load
from dayfly.jobs.errors import ConfigError
from dayfly.jobs.ids import new_id
from dayfly.jobs.signatures import FIELD, VALID_SECONDS, Signing, SigningKey, TrustedKeys
from dayfly.jobs.spec import DEFAULT_QUEUE
from dayfly.queue.key_files import read_key, read_keys

if TYPE_CHECKING:
    import os


def signing(settings: Settings) -> Signing | None:
    """What [client] signing_key says; None when it is not set. Raises DayflyError for a key that must not be used."""
    key = _signing_key(settings)
    if key is None:
        return None
    trusted = read_keys(Path(each) for each in settings.texts("worker.trusted_keys"))
    return Signing(key, TrustedKeys((key.key, *trusted)))


def sign(
    document: Mapping[str, Any], *, queue: str = DEFAULT_QUEUE, key: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """What a plain RQ producer gives to `enqueue` beside the document, so that the job is a signed one:

        Queue("ci", connection=redis, serializer=JSONSerializer).enqueue(
            "dayfly.execute", document, **dayfly.sign(document, queue="ci"))

    It makes the job's id, as the signature binds it. `key`: a key file; by default that of the configuration.
    Raises DayflyError for a key that cannot be used or is not there, SpecError for a document that no worker would run.
    """
    from dayfly.jobs.door import read_job

    settings = load({"client.signing_key": None if key is None else str(Path(key))})
    key_used = _signing_key(settings)
    if key_used is None:
        raise ConfigError(
            "dayfly.sign()", None, "there is no key to sign with", "set [client] signing_key, or give key="
        )
    spec = read_job(document)
    job_id = new_id()
    signature = key_used.sign_job(job_id, queue, document, spec.delay_seconds or 0.0)
    return {"job_id": job_id, "meta": {FIELD: signature}}


def _signing_key(settings: Settings) -> SigningKey | None:
    file = settings.text("client.signing_key")
    if file is None:
        return None
    try:
        return SigningKey(read_key(Path(file)), settings.number("client.signature_valid") or VALID_SECONDS)
    except ValueError as error:
        raise ConfigError(settings.origin("client.signing_key"), None, f"{file}: {error}") from error
