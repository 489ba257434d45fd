"""One image of a registry: its manifest, found through indexes, and its blobs as they come.

Mirrors are asked first, each for what it has; whatever they give is compared with the digest that was asked for. A tag
is the registry's own to say, but a mirror that knows it is believed: the operator has named it.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Self, TypeVar

import httpx2

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.manifest import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    Descriptor,
    Manifest,
    config_of,
    digest_of,
    media_type_of,
    read_json,
    read_manifest,
)
from dayfly.runtime.images.platforms import Platforms
from dayfly.runtime.registry.address import Address
from dayfly.runtime.registry.session import Session
from dayfly.runtime.registry.settings import RegistrySettings

_ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
_Answer = TypeVar("_Answer")


class RemoteImage:
    """A context manager; threads may share it. `largest_json` bounds a manifest, an index, a configuration, in bytes.

    `digest` is that of the manifest or index which the address means, once `read` or `find` has asked.
    """

    def __init__(self, address: Address, settings: RegistrySettings, largest_json: int) -> None:
        self._address = address
        self._settings = settings
        self._largest_json = largest_json
        self._stack = ExitStack()
        self._sessions: dict[str, Session] = {}
        self.digest = address.digest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def find(self) -> str:
        """The digest that the address means now. Raises ImageError."""
        if not self._address.digest:
            self.digest = digest_of(self._manifest(self._address.wanted)[1])
        return self.digest

    def read(self, platform: str) -> Manifest:
        """The manifest for `platform` ("linux/amd64") with its configuration. Raises ImageError."""
        media_type, raw = self._manifest(self._address.wanted)
        self.digest = digest_of(raw)
        where = str(self._address)
        top = Descriptor(media_type, self.digest, len(raw))
        fetched = {self.digest: raw}

        def read_index(descriptor: Descriptor) -> bytes:
            return fetched.get(descriptor.digest) or self._manifest(descriptor.digest)[1]

        chosen = Platforms(where, platform, read_index).choose([top])
        raw = read_index(chosen)
        raw_config = self._config(config_of(read_json(raw, where), where))
        return read_manifest(raw, raw_config, where)

    @contextmanager
    def blob(self, descriptor: Descriptor, offset: int = 0) -> Iterator[httpx2.Response]:
        """The blob's bytes from `offset` on, as they come; status 200 means that it begins at 0 all the same.

        Raises ImageError; httpx2.TransportError where the connection breaks off within the body.
        """
        headers = {"Accept-Encoding": "identity"}  # the digest is of what is stored
        if offset:
            headers["Range"] = f"bytes={offset}-"
        path = f"blobs/{descriptor.digest}"
        what = f"get the layer {descriptor.digest[:19]} of {self._address}"
        with ExitStack() as stack:
            yield self._first_of(lambda session: stack.enter_context(self._get(session, path, what, headers)))

    def _manifest(self, wanted: str) -> tuple[str, bytes]:
        what = f"get the manifest of {self._address}"

        def ask(session: Session) -> tuple[str, bytes]:
            with self._get(session, f"manifests/{wanted}", what, {"Accept": _ACCEPT}) as response:
                raw = self._read(response, what)
            if wanted.startswith("sha256:") and digest_of(raw) != wanted:
                raise ImageError(f"{session.name} gave another manifest than {wanted}: {digest_of(raw)}")
            said = response.headers.get("Content-Type", "").partition(";")[0].strip()
            return media_type_of(read_json(raw, str(self._address)), said), raw

        return self._first_of(ask)

    def _config(self, descriptor: Descriptor) -> bytes:
        what = f"get the configuration of {self._address}"

        def ask(session: Session) -> bytes:
            with self._get(session, f"blobs/{descriptor.digest}", what, {"Accept-Encoding": "identity"}) as response:
                raw = self._read(response, what)
            if digest_of(raw) != descriptor.digest:
                raise ImageError(
                    f"{session.name} gave another configuration than {descriptor.digest}: {digest_of(raw)}"
                )
            return raw

        return self._first_of(ask)

    def _first_of(self, ask: Callable[[Session], _Answer]) -> _Answer:
        """What the first place that has it says. A mirror's fault is told only if the registry itself fails too."""
        told = []
        for mirror in self._settings.mirrors.get(self._address.registry, ()):
            try:
                return ask(self._session(mirror, mirror))
            except ImageError as error:
                told.append(f"mirror {mirror}: {error}")
        try:
            return ask(self._session(self._address.registry, self._address.host))
        except ImageError as error:
            if not told:
                raise
            raise type(error)("; ".join([str(error), *told])) from error

    def _session(self, name: str, host: str) -> Session:
        if host not in self._sessions:
            self._sessions[host] = self._stack.enter_context(Session(name, host, self._settings))
        return self._sessions[host]

    def _get(
        self, session: Session, path: str, what: str, headers: Mapping[str, str]
    ) -> AbstractContextManager[httpx2.Response]:
        repository = self._address.repository
        url = f"/v2/{repository}/{path}"
        return session.ask("GET", url, what, scope=f"repository:{repository}:pull", headers=headers)

    def _read(self, response: httpx2.Response, what: str) -> bytes:
        raw = bytearray()
        for piece in response.iter_bytes():
            raw += piece
            if len(raw) > self._largest_json:
                raise ImageError(f"cannot {what}: it has more than {self._largest_json} bytes")
        return bytes(raw)
