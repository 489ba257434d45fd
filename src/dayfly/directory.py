"""The directory that a job gets: mounted live where it lies, or frozen into a bundle that no later edit reaches."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dayfly.config import home_directory, load
from dayfly.jobs.errors import SpecError


def live(path: str) -> dict[str, Any]:
    """The document's `dir` for a directory of this host: named by host, path, device and inode. Raises SpecError."""
    from dayfly.worker.host import host_id

    absolute = _absolute(path)
    found = os.stat(absolute)
    return {"path": absolute, "host": host_id(), "device": found.st_dev, "inode": found.st_ino}


def frozen(path: str, home: Path) -> dict[str, Any]:
    """The document's `dir` for what the directory holds now, kept below `home`. Raises SpecError, HostError."""
    from dayfly.runtime.bundle import freeze

    return {"bundle": freeze(_absolute(path), home / "bundles")}


def placed(document: Mapping[str, Any], *, freeze_below: Path | None = None) -> dict[str, Any]:
    """The document with a `dir` that is only a path made live, or frozen below a home. Raises SpecError, HostError.

    A build's is always frozen: its steps are kept by what its files hold.
    """
    if freeze_below is None and "build" in document:
        freeze_below = home_directory(load())
    named = document.get("dir")
    path = named.get("path") if isinstance(named, Mapping) and set(named) == {"path"} else named
    if isinstance(path, str | os.PathLike):
        made = live(os.fspath(path)) if freeze_below is None else frozen(os.fspath(path), freeze_below)
        return {**document, "dir": made}
    return dict(document)


def default() -> tuple[str | None, str | None]:
    """What `run` takes when nobody says: the current directory, or none and why."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        return None, "the current directory is gone: the job gets none"
    if here == "/":
        return None, "the current directory is /: the job gets none (--dir / gives it)"
    if os.path.realpath(os.path.expanduser("~")) == here:
        return None, f"the current directory is your home {here}: the job gets none (--dir . gives it)"
    return here, None


def _absolute(path: str) -> str:
    absolute = os.path.realpath(path)
    try:
        is_directory = stat.S_ISDIR(os.stat(absolute).st_mode)
    except OSError as error:
        raise SpecError("dir", f"cannot use {path}: {error.strerror}") from error
    if not is_directory:
        raise SpecError("dir", f"{path} is not a directory")
    return absolute
