"""The names of images: what a user may write, and how a name becomes a file name.

host                     the host's own /usr
./root, ../root, /root   a directory, used in place
debian:12                a name in the store; without a tag the tag is `latest`
debian:12@sha256:…       the same, pinned: the digest decides, the name only says where it came from
sha256:…                 a digest alone
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote, unquote

from dayfly.jobs.errors import ImageError

HOST = "host"

# Docker's grammar, with upper case allowed: path components, then perhaps a tag.
_COMPONENT = r"[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?::[0-9]+)?(?:/{_COMPONENT})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?")
_HUBS = re.compile(r"^(index\.)?docker\.io/(library/(?=[^/]+$))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_LENGTH = 200  # with "/" and ":" escaped a name still fits a file name of 255 bytes


class Kind(Enum):
    HOST = "host"
    DIRECTORY = "directory"
    NAME = "name"
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference taken apart. `name` is set for NAME and DIGEST ("" when there is none), `path` for DIRECTORY."""

    kind: Kind
    name: str = ""
    digest: str = ""
    path: str = ""


def parse(text: str) -> Reference:
    """Take a reference apart; raises ImageError when it is none."""
    if text == HOST:
        return Reference(Kind.HOST, name=HOST)
    if text in (".", "..") or text.startswith(("/", "./", "../")):
        return Reference(Kind.DIRECTORY, path=text)
    if text.startswith("sha256:"):
        return Reference(Kind.DIGEST, digest=_digest(text, text))
    name, at, digest = text.partition("@")
    if at:
        return Reference(Kind.DIGEST, name=canonical(name), digest=_digest(digest, text))
    return Reference(Kind.NAME, name=canonical(name))


def canonical(name: str) -> str:
    """The name as the store knows it: `docker.io/library/debian:latest` is `debian`. Raises ImageError for no name."""
    name = _HUBS.sub("", name, 1)
    if len(name) > _MAX_LENGTH or not _NAME.fullmatch(name) or name.startswith("sha256:"):
        raise ImageError(
            f"{name[:80]!r} cannot be the name of an image",
            f"letters, digits and ._- in parts separated by /, then perhaps a :tag, {_MAX_LENGTH} characters at most",
        )
    if name == HOST or name.startswith(HOST + ":"):
        raise ImageError(f"the name {name!r} is taken: it is the host's own root", "choose another name")
    return name.removesuffix(":latest")


def is_remote(text: str) -> bool:
    """Whether a registry could have it: neither the host's own root, nor a directory, nor a digest alone."""
    parsed = parse(text)
    return parsed.kind in (Kind.NAME, Kind.DIGEST) and bool(parsed.name)


def is_pinned(text: str) -> bool:
    """Whether a digest says which bytes are meant."""
    return parse(text).kind is Kind.DIGEST


def repository_of(name: str) -> str:
    """A name without its tag and digest."""
    repository, colon, tag = name.partition("@")[0].rpartition(":")
    return repository if colon and "/" not in tag else name.partition("@")[0]


def spellings(text: str) -> Iterator[str]:
    """The forms of a name by which it may be meant, with its tag and without, and with Docker Hub's in front."""
    name = text.partition("@")[0]
    if not name or name.startswith("sha256:"):
        return
    short = canonical(name)
    repository, colon, tag = short.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = short, "latest"
    first, slash, _ = repository.partition("/")
    is_hubs = not (slash and ("." in first or ":" in first or first == "localhost"))
    prefixes = ["", "docker.io/" if slash else "docker.io/library/"] if is_hubs else [""]
    for prefix in prefixes:
        yield prefix + repository
        yield f"{prefix}{repository}:{tag}"


def is_digest(text: str) -> bool:
    """Whether this is a whole sha256 digest; no other algorithm is known."""
    return _DIGEST.fullmatch(text) is not None


def file_name(name: str) -> str:
    """The file name of a reference, without `/`, never `.` or `..`."""
    return quote(name, safe="")


def name_of(file: str) -> str:
    """The reference that `file_name` made this file name of."""
    return unquote(file)


def _digest(digest: str, text: str) -> str:
    if not is_digest(digest):
        raise ImageError(f"{text[:120]!r}: a digest is sha256: and 64 lower-case hexadecimal digits")
    return digest
