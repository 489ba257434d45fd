"""From what a job wrote to an image: its layer, with its history, upon the image that it ran on."""

import os
import time
from collections.abc import Mapping
from typing import Any

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.adding import archive_of
from dayfly.runtime.images.image import Imported
from dayfly.runtime.images.manifest import Manifest, told_history
from dayfly.runtime.images.store import ImageStore
from dayfly.worker.kept_jobs import KeptJob


def commit(store: ImageStore, job: KeptJob, name: str, message: str = "") -> Imported:
    """Give `name` to the image of the job with all that it wrote. Raises ImageError, HostError."""
    base = job.record.image_digest or ""
    if not base.startswith("sha256:"):
        raise ImageError(
            f"job {job.record.job_id} ran on {job.record.image_ref}, which is no image of the store",
            "an image can be committed upon one that was imported, pulled or built",
        )
    epoch = source_date_epoch()
    created = rfc3339(job.record.claimed_at if epoch is None else epoch)
    entry = {"created": created, "created_by": _command(job), "comment": message}
    config = with_history(store.named(base), {key: value for key, value in entry.items() if value})
    with job.root() as upper, job.image() as image:
        skip = job.not_its_own(upper, image)
        return store.add(base, archive_of(upper, name, frozenset(skip), epoch), config, name)


def with_history(base: Manifest, entry: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of `base` with a further step in its history (image-spec, config.md), and its time as the
    image's."""
    created = {"created": entry["created"]} if "created" in entry else {}
    return {**base.config, **created, "history": [*told_history(base), dict(entry)]}


def source_date_epoch() -> int | None:
    """reproducible-builds.org, SOURCE_DATE_EPOCH: Unix seconds; None when it is not set. Raises ImageError."""
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isdecimal() or len(text) > 11:
        raise ImageError(f"SOURCE_DATE_EPOCH={text!r} is no number of seconds", "`date +%s` prints one")
    return int(text)


def rfc3339(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _command(job: KeptJob) -> str:
    argv = job.record.container.process.argv
    return " ".join(argv)[:1000]
