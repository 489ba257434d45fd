"""A push: what a registry does not have yet of an image, layers side by side, its manifest last.

A layer that the registry has in another repository is mounted from there (distribution-spec, "Mounting a blob from
another repository"), if we know which: the one that the image was pulled from.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from urllib.parse import urlencode

import httpx2

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import Descriptor, config_of, media_type_of, read_json
from dayfly.runtime.images.packaged import PackagedImage
from dayfly.runtime.registry.address import Address, parse_address
from dayfly.runtime.registry.bounded import read_words
from dayfly.runtime.registry.pull import LayerProgress
from dayfly.runtime.registry.reach import read_url
from dayfly.runtime.registry.session import NotInRegistryError, Session
from dayfly.runtime.registry.settings import RegistrySettings

_AT_A_TIME = 4
_TRIES = 4
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Pushed:
    """The manifest's digest, and how many blobs went over, were mounted, were there."""

    digest: str
    sent: int
    mounted: int
    present: int


def push(
    image: PackagedImage,
    address: Address,
    settings: RegistrySettings,
    progress: LayerProgress | None = None,
    mount_from: str = "",
) -> Pushed:
    """Push the image to `address`. `mount_from`: a repository of the same registry that may have its layers.

    Raises ImageError, OSError.
    """
    if address.digest:
        raise ImageError(f"cannot push to {address}: a digest says what an image is, not where it goes")
    with Session(address.registry, address.host, settings) as session:
        upload = _Upload(session, address, progress, mount_from)
        config = config_of(read_json(image.manifest.raw, str(address)), str(address))
        done = [upload.small(config, image.manifest.raw_config), *upload.layers(image)]
        upload.manifest(image.manifest.raw)
    return Pushed(image.manifest.digest, done.count("sent"), done.count("mounted"), done.count("present"))


def mountable(name: str, address: Address) -> str:
    """The repository of the same registry that an image of this name may have come from; "" for none."""
    try:
        own = parse_address(name)
    except ImageError:
        return ""
    return own.repository if own.registry == address.registry else ""


class _Upload:
    """To one repository."""

    def __init__(self, session: Session, address: Address, progress: LayerProgress | None, mount_from: str) -> None:
        self._session = session
        self._address = address
        self._progress = progress
        self._mount_from = mount_from if mount_from != address.repository else ""
        self._scope = f"repository:{address.repository}:pull,push"
        if self._mount_from:
            self._scope += f" repository:{self._mount_from}:pull"
        self._url = f"/v2/{address.repository}"

    def layers(self, image: PackagedImage) -> list[str]:
        """What was done with each."""
        pairs = dict(zip(image.manifest.layers, image.files, strict=True))
        with ThreadPoolExecutor(_AT_A_TIME) as pool:
            return list(pool.map(lambda pair: self._layer(*pair), pairs.items()))

    def small(self, blob: Descriptor, raw: bytes) -> str:
        return self._unless_there(blob, lambda: raw)

    def manifest(self, raw: bytes) -> None:
        kind = media_type_of(read_json(raw, str(self._address)), "")
        what = f"push the manifest of {self._address}"
        url = f"{self._url}/manifests/{self._address.wanted}"
        headers = {"Content-Type": kind}
        with self._session.ask("PUT", url, what, scope=self._scope, headers=headers, content=raw) as sent:
            sent.read()

    def _layer(self, layer: Descriptor, path: str) -> str:
        done = self._unless_there(layer, lambda: _pieces(path, lambda size: self._took(layer, size)))
        self._took(layer, layer.size)
        return done

    def _unless_there(self, blob: Descriptor, content: Callable[[], object]) -> str:
        what = f"push {blob.digest[:19]} of {self._address}"
        if self._has(blob, what):
            return "present"
        for number in range(_TRIES):
            with ExitStack() as stack:
                location = self._begin(blob, what, stack)
                if location is None:
                    return "mounted"
                try:
                    if self._send(location, blob, content(), what):
                        return "sent"
                except httpx2.TransportError as error:
                    if number == _TRIES - 1:
                        raise self._session.unreachable(what, error) from error
        raise ImageError(f"cannot {what}: {self._session.name} did not take it in {_TRIES} tries")

    def _has(self, blob: Descriptor, what: str) -> bool:
        try:
            with self._session.ask("HEAD", f"{self._url}/blobs/{blob.digest}", what, scope=self._scope):
                return True
        except NotInRegistryError:
            return False

    def _begin(self, blob: Descriptor, what: str, stack: ExitStack) -> httpx2.URL | None:
        """Where to send it; None: it was mounted."""
        query = f"?{urlencode({'mount': blob.digest, 'from': self._mount_from})}" if self._mount_from else ""
        begun = stack.enter_context(
            self._session.ask("POST", f"{self._url}/blobs/uploads/{query}", what, scope=self._scope)
        )
        read_words(begun)
        if begun.status_code == 201:
            return None
        location = begun.headers.get("Location")
        if not location:
            raise ImageError(f"cannot {what}: {self._session.name} does not say where to")
        target = begun.url.join(read_url(location, self._session.name))
        if target.scheme != begun.url.scheme and target.scheme != "https":
            raise ImageError(f"cannot {what}: {self._session.name} sends us to {target.host} without TLS")
        self._session.check_reach(target)
        return target

    def _send(self, location: httpx2.URL, blob: Descriptor, content: object, what: str) -> bool:
        """All in one request ("monolithic"). False when the registry was busy."""
        url = location.copy_merge_params({"digest": blob.digest})
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        request = self._session.build("PUT", str(url), self._scope, headers=headers, content=content)
        response = self._session.send(request)
        try:
            if response.status_code in (401, 429, 500, 502, 503, 504):
                return False
            self._session.check(response, self._scope, what)
            return True
        finally:
            response.close()

    def _took(self, layer: Descriptor, size: int) -> None:
        if self._progress is not None:
            self._progress(layer.digest, size, layer.size)


def _pieces(path: str, took: Callable[[int], None]) -> Iterator[bytes]:
    done = 0
    with open(path, "rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece
            done += len(piece)
            took(done)
