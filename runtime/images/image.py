"""What an image is once it lies in the store: frozen values, and the door through which an image's config enters."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dayfly.jobs.errors import ImageError

DIRECTORY = "dir:"
"""What the digest of a directory used in place begins with."""

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Docker's grammar of USER: a name or a number, then perhaps a group. useradd(8) allows a trailing `$`.
_USER = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*\$?)(?::[A-Za-z0-9_][A-Za-z0-9_.-]*\$?)?")
_MAX_ID = 2**32 - 2  # (uid_t)-1 means "no change" to chown(2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """How the image wants to be started. Labels are kept for display; nothing in Dayfly acts on them."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    user: str = ""
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A runnable image. `layers` are absolute directories in overlay's form, the TOP one first.

    `digest` is that of the manifest ("sha256:…"); of the host's image it is "host:<sha256 of its skeleton>", of a
    directory used in place "dir:<path>". `host_trees` are directories of the host that get an overlay of their own.
    """

    name: str
    digest: str
    layers: tuple[str, ...]
    host_trees: tuple[str, ...] = ()
    config: ImageConfig = ImageConfig()

    @property
    def directory(self) -> str | None:
        """The directory, without links, of an image that is one used in place; None of one that lies in the store."""
        return self.digest.removeprefix(DIRECTORY) if self.digest.startswith(DIRECTORY) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of `dayfly image ls`. `size_bytes` counts each layer whole, also one that other images share."""

    name: str
    digest: str
    created: float
    size_bytes: int
    layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import made, and what it left out on the way, in sentences."""

    image: Image
    warnings: tuple[str, ...] = ()


def read_config(document: Mapping[str, Any], source: str) -> ImageConfig:
    """The `config` object of an OCI or Docker image configuration, checked as hostile input.

    Raises ImageError with `source` and the field. Volumes, exposed ports and health checks are not read.
    """
    config = document.get("config") or {}
    if not isinstance(config, dict):
        raise ImageError(f"{source}: config must be an object, got {type(config).__name__}")
    return ImageConfig(
        entrypoint=_strings(config, "Entrypoint", source),
        cmd=_strings(config, "Cmd", source),
        env=_environment(_strings(config, "Env", source)),
        workdir=_string(config, "WorkingDir", source),
        user=_user(_string(config, "User", source), source),
        stop_signal=_string(config, "StopSignal", source),
        labels=_labels(config, source),
    )


def _strings(config: Mapping[str, Any], key: str, source: str) -> tuple[str, ...]:
    value = config.get(key) or []
    if not isinstance(value, list):
        raise ImageError(f"{source}: config.{key} must be a list of strings, got {type(value).__name__}")
    return tuple(_clean(item, f"config.{key}", source) for item in value)


def _string(config: Mapping[str, Any], key: str, source: str) -> str:
    return _clean(config.get(key) or "", f"config.{key}", source)


def _clean(value: object, path: str, source: str) -> str:
    """A NUL or a lone surrogate would fail later, in exec or in the record's JSON, where nobody knows whose it is."""
    if not isinstance(value, str):
        raise ImageError(f"{source}: {path} must be a string, got {type(value).__name__}")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise ImageError(f"{source}: {path} holds a NUL or half of a surrogate pair")
    return value


def _environment(pairs: tuple[str, ...]) -> dict[str, str]:
    split = (pair.partition("=") for pair in pairs)
    return {name: value for name, equals, value in split if name and equals}


def _user(user: str, source: str) -> str:
    """CVE-2026-46680: a number that is too big must not be looked up as a name, nor `root\\n` be taken for root."""
    if not user:
        return user
    if not _USER.fullmatch(user):
        raise ImageError(f"{source}: config.User {user[:80]!r} is neither a name nor a number, with or without a group")
    for part in user.split(":"):
        if part.isdecimal() and int(part[:12]) > _MAX_ID:
            raise ImageError(f"{source}: config.User {user[:80]!r} is above the largest id, {_MAX_ID}")
    return user


def _labels(config: Mapping[str, Any], source: str) -> dict[str, str]:
    labels = config.get("Labels") or {}
    if not isinstance(labels, dict):
        raise ImageError(f"{source}: config.Labels must be an object, got {type(labels).__name__}")
    return {
        _clean(key, "config.Labels", source): _clean(value, "config.Labels", source) for key, value in labels.items()
    }
