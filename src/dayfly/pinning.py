"""Images pinned as a job is enqueued: to what their names mean then, where whoever submits has the worker's store.

A job of another host's worker is pinned by its first attempt (worker/starting.py): to ask a registry at each submission
would cost a round trip, and name bytes that the worker may have under that name already, older.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from dayfly.jobs.errors import ImageError
from dayfly.jobs.spec import DEFAULT_IMAGE, JobSpec


def pinned(spec: JobSpec, home: Path, known: dict[str, str]) -> JobSpec:
    """The same job, with the digests of the images that the store of `home` has; others stay as they are.

    `known` remembers what each name meant: jobs that are submitted together run on the same.
    """
    if spec.image in (None, DEFAULT_IMAGE) and not spec.services:
        return spec
    services = tuple(replace(each, image=_pinned(each.image, home, known)) for each in spec.services)
    return replace(spec, image=spec.image and _pinned(spec.image, home, known), services=services)


def _pinned(name: str, home: Path, known: dict[str, str]) -> str:
    if name not in known:
        known[name] = _looked_up(name, home)
    return known[name]


def _looked_up(name: str, home: Path) -> str:
    from dayfly.runtime.images.reference import Kind, file_name, is_digest, parse

    try:
        reference = parse(name)
        if reference.kind is not Kind.NAME:
            return name
        digest = (home / "images/refs" / file_name(reference.name)).read_text(encoding="ascii").strip()
    except (ImageError, OSError, UnicodeDecodeError):
        return name  # the worker finds the same, and says so in the job's result
    return f"{name}@{digest}" if is_digest(digest) else name
