"""Requests to one registry, repeated until they are answered (OCI distribution-spec 1.1; Docker Registry HTTP API v2).

What a registry may do is met with patience: it wants to know who we are, sends us elsewhere for a blob, is busy (429,
503 with Retry-After), breaks off.
"""

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import httpx2

from dayfly.jobs.errors import ImageError
from dayfly.runtime.registry.authorization import Authorization, denied
from dayfly.runtime.registry.bounded import read_words
from dayfly.runtime.registry.credentials import Credentials, find_credentials
from dayfly.runtime.registry.reach import check_reach, read_url
from dayfly.runtime.registry.settings import RegistrySettings
from dayfly.runtime.registry.transport import connect

_TRIES = 6
_TRIES_TO_BEGIN = 2  # of a registry that nobody has heard of yet: most often its name is wrong
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 20.0
_BUSY = frozenset((408, 429, 500, 502, 503, 504))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MOST_REDIRECTS = 5
_MOST_QUESTIONS = 3  # of a registry that wants to know who we are


class NotInRegistryError(ImageError):
    """A registry that answers does not have it."""


class Session:
    """A context manager; threads may share it. `name` is what people call the registry whose API is at `host`."""

    def __init__(
        self,
        name: str,
        host: str,
        settings: RegistrySettings = RegistrySettings(),  # noqa: B008 - frozen
        credentials: Credentials | None = None,
    ) -> None:
        """`credentials`: who we are there; unless given, whoever Docker's files say."""
        self.name = name
        self._settings = settings
        self._client = connect(host, settings.insecure)
        self._authorization = Authorization(name, credentials or find_credentials(name), settings)
        self._has_answered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def ask(
        self,
        method: str,
        url: str,
        what: str,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Iterator[httpx2.Response]:
        """The answer, once it is a good one (2xx); its body is still to be read. `what` completes "cannot …".

        Raises NotInRegistryError, ImageError; httpx2.TransportError where the connection breaks off within the body.
        """
        for number in range(_TRIES):
            is_last = number == _TRIES - 1
            try:
                response = self._answer(method, url, scope, headers or {}, content)
            except httpx2.TransportError as error:
                if is_last or (self._is_nobody_there(error) and number == _TRIES_TO_BEGIN - 1):
                    raise self.unreachable(what, error) from error
                _pause(number, None)
                continue
            self._has_answered = True
            with _closing(response):
                if response.status_code in _BUSY and not is_last:
                    _pause(number, response.headers.get("Retry-After"))
                    continue
                self.check(response, scope, what)
                yield response
                return

    def send(self, request: httpx2.Request) -> httpx2.Response:
        """One request, once: of a body that can be read only once."""
        return self._client.send(request, stream=True)

    def build(self, method: str, url: str, scope: str, **options: object) -> httpx2.Request:
        """A request with what is known of our leave to make it, if `url` is the registry's own."""
        request = self._client.build_request(method, url, **options)  # type: ignore[arg-type]
        if self._is_own(request.url):
            request.headers.update(self._authorization.headers(scope))
        return request

    def check(self, response: httpx2.Response, scope: str, what: str) -> None:
        """Raises NotInRegistryError or ImageError for an answer that is no good one."""
        if response.is_success:
            return
        status = response.status_code
        if status in (401, 403):
            raise denied(self.name, scope, status)
        if status == 404:
            raise NotInRegistryError(f"cannot {what}: {self.name} does not have it", "is the name right?")
        words = _words(read_words(response)) or response.reason_phrase
        raise ImageError(f"cannot {what}: {self.name} answers {status}: {words}")

    def unreachable(self, what: str, error: httpx2.HTTPError) -> ImageError:
        why = str(error) or type(error).__name__
        return ImageError(f"cannot {what}: {why}", f"is {self.name} reachable from here?")

    def _answer(
        self, method: str, url: str, scope: str, headers: Mapping[str, str], content: bytes | None
    ) -> httpx2.Response:
        """One try, with as many requests as it takes to be let in; at the end of all redirects."""
        for _ in range(_MOST_QUESTIONS):
            used = self._authorization.headers(scope)
            response = self.send(self.build(method, url, scope, headers=headers, content=content))
            if response.status_code != 401:
                break
            with _closing(response):
                read_words(response)
                if not self._authorization.answer(self._client, response, scope, used):
                    break
        return self._follow(method, response, headers) if method in ("GET", "HEAD") else response

    def _follow(self, method: str, response: httpx2.Response, headers: Mapping[str, str]) -> httpx2.Response:
        """Where a registry sends us for its blobs nobody is to learn who we are there; it never is plain HTTP then."""
        for _ in range(_MOST_REDIRECTS):
            if response.status_code not in _REDIRECTS:
                return response
            response.close()
            target = response.url.join(read_url(response.headers.get("Location", ""), self.name))
            if target.scheme != "https" and target.scheme != response.url.scheme:
                raise ImageError(f"{self.name} sends us to {target.host} without TLS")
            self.check_reach(target)
            response = self.send(self._client.build_request(method, target, headers=headers))
        response.close()
        raise ImageError(f"{self.name} sends us round in circles: more than {_MOST_REDIRECTS} redirects")

    def check_reach(self, url: httpx2.URL) -> None:
        """Raises ImageError where the registry must not send us."""
        check_reach(self._client.base_url.host, url, self.name, self._settings.inside)

    def _is_nobody_there(self, error: httpx2.TransportError) -> bool:
        return isinstance(error, httpx2.ConnectError) and not self._has_answered

    def _is_own(self, url: httpx2.URL) -> bool:
        base = self._client.base_url
        return (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)


def try_out(name: str, host: str, settings: RegistrySettings, credentials: Credentials) -> None:
    """Whether a registry lets these in. Raises ImageError when it does not, or cannot be asked."""
    what = f"log in to {name}"
    with Session(name, host, settings, credentials) as session, session.ask("GET", "/v2/", what) as answer:
        read_words(answer)


@contextmanager
def _closing(response: httpx2.Response) -> Iterator[None]:
    try:
        yield
    finally:
        response.close()


def _pause(number: int, retry_after: str | None) -> None:
    """As long as the registry says, within reason; else twice as long each time, and not all at one moment."""
    if retry_after is not None and retry_after.isdecimal():
        time.sleep(min(int(retry_after[:6]), _LONGEST_PAUSE_SECONDS))
        return
    longest = min(_FIRST_PAUSE_SECONDS * 2**number, _LONGEST_PAUSE_SECONDS)
    time.sleep(random.uniform(longest / 2, longest))


def _words(body: bytes) -> str:
    """What it says itself: `{"errors": [{"code", "message"}]}`; "" for nothing."""
    try:
        first = json.loads(body)["errors"][0]
        said = f"{first.get('code', '')} {first.get('message', '')}"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return ""
    return "".join(char for char in said.strip()[:200] if char.isprintable())
