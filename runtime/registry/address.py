"""Where an image lies: names as Docker writes them, taken apart (distribution/reference, "Grammar").

alpine                          docker.io/library/alpine:latest
ghcr.io/x/y:tag                 the first part is a registry when it has a `.` or a `:`, or is `localhost`
localhost:5000/y@sha256:…       a digest decides; a tag beside it is only said
"""

import re
from dataclasses import dataclass

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.reference import is_digest

DOCKER_HUB = "docker.io"
_HUBS_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HUBS_HOST = "registry-1.docker.io"
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Address:
    """`registry` is HOST or HOST:PORT, `repository` its path there; `digest` decides when both it and a tag are set."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def host(self) -> str:
        return host_of(self.registry)

    @property
    def wanted(self) -> str:
        """What a manifest is asked for by."""
        return self.digest or self.tag

    def __str__(self) -> str:
        """In full: `docker.io/library/alpine:latest`."""
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse_registry(text: str) -> str:
    """The registry that people mean by HOST[:PORT], perhaps as a URL, as `docker login` takes it. Raises ImageError."""
    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if not _HOST.fullmatch(host):
        raise ImageError(f"{text[:120]!r} is no registry", "HOST[:PORT]: ghcr.io, localhost:5000")
    return DOCKER_HUB if host in _HUBS_NAMES else host


def host_of(registry: str) -> str:
    """Whom to ask: the hub answers at another name than its images have."""
    return _HUBS_HOST if registry == DOCKER_HUB else registry


def parse_address(text: str) -> Address:
    """Take a name apart. Raises ImageError when it names nothing that a registry could have."""
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise ImageError(f"{text[:120]!r}: a digest is sha256: and 64 lower-case hexadecimal digits")
    first, slash, rest = name.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost")
    registry, path = (first, rest) if is_registry else (DOCKER_HUB, name)
    repository, colon, tag = path.partition(":")
    if registry in _HUBS_NAMES:
        registry, repository = DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
    if not _REPOSITORY.fullmatch(repository) or (colon and not _TAG.fullmatch(tag)):
        remedy = "[REGISTRY/]NAME[:TAG][@DIGEST], the name in lower case: alpine:3.20, ghcr.io/owner/image"
        raise ImageError(f"{text[:120]!r} is no image of a registry", remedy)
    return Address(registry, repository, tag or ("" if digest else _LATEST), digest)
