"""What a registry wants to see before it answers: nothing, a password, or a token (distribution spec, "token").

    GET /v2/…          401  WWW-Authenticate: Bearer realm="https://auth…",service="…",scope="repository:x/y:pull"
    GET realm?service&scope   (with a password, if we have one)  {"token": "…"}
    GET /v2/…  Authorization: Bearer …

A token is asked for once a scope and kept until the registry wants another. A password goes to the registry and to the
realm that it names; no realm is asked over plain HTTP unless the registry itself is.
"""

import json
import re
import threading
from dataclasses import dataclass

import httpx2

from dayfly.jobs.errors import ImageError
from dayfly.runtime.registry.bounded import read_words
from dayfly.runtime.registry.credentials import Credentials
from dayfly.runtime.registry.reach import check_reach, read_url
from dayfly.runtime.registry.settings import RegistrySettings

_PARAMETER = re.compile(r'([A-Za-z0-9_-]+)=(?:"((?:[^"\\]|\\.)*)"|([^",\s]+))')
_CLIENT = "dayfly"


@dataclass(frozen=True, slots=True)
class Challenge:
    """`WWW-Authenticate`, as much of it as registries use (RFC 9110, 11.6.1)."""

    scheme: str
    parameters: dict[str, str]

    @classmethod
    def read(cls, header: str) -> "Challenge":
        scheme, _, rest = header.strip().partition(" ")
        found = {name.lower(): quoted.replace('\\"', '"') or bare for name, quoted, bare in _PARAMETER.findall(rest)}
        return cls(scheme.lower(), found)


class Authorization:
    """Of one registry. Threads share it: layers come in parallel."""

    def __init__(self, registry: str, credentials: Credentials | None, settings: RegistrySettings) -> None:
        self._registry = registry
        self._settings = settings
        self._credentials = credentials
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def headers(self, scope: str) -> dict[str, str]:
        """What to send with a request of this scope, as far as is known."""
        known = self._known.get(scope)
        return {} if known is None else {"Authorization": known}

    def answer(self, client: httpx2.Client, response: httpx2.Response, scope: str, used: dict[str, str]) -> bool:
        """Whether another try, with what is known now, is worth it. Raises ImageError when we are not let in."""
        with self._lock:
            if self.headers(scope) != used:
                return True  # another thread has answered the same question meanwhile
            challenge = Challenge.read(response.headers.get("WWW-Authenticate", ""))
            if challenge.scheme == "basic":
                return self._send_password(scope, used)
            if challenge.scheme == "bearer":
                self._known[scope] = f"Bearer {self._token(client, challenge, scope, response.url)}"
                return self.headers(scope) != used
            return False

    def _send_password(self, scope: str, used: dict[str, str]) -> bool:
        if self._credentials is None or used:
            return False
        pair = httpx2.BasicAuth(self._credentials.user, self._credentials.password)
        request = next(pair.auth_flow(httpx2.Request("GET", "http://nobody")))
        self._known[scope] = request.headers["Authorization"]
        return True

    def _token(self, client: httpx2.Client, challenge: Challenge, scope: str, asked: httpx2.URL) -> str:
        realm = challenge.parameters.get("realm", "")
        url = read_url(realm, self._registry)
        if url.scheme not in ("http", "https"):
            raise ImageError(f"{self._registry} names no token server: {realm[:120]!r}")
        if asked.scheme == "https" and url.scheme != "https" and self._registry not in self._settings.insecure:
            raise ImageError(
                f"{self._registry} names a token server without TLS: {realm[:120]}", "[images] insecure lets it"
            )
        check_reach(asked.host, url, self._registry, self._settings.inside)
        scopes = list(dict.fromkeys([*challenge.parameters.get("scope", "").split(), *scope.split()]))
        try:
            service = challenge.parameters.get("service", "")
            mine = self._credentials if url.scheme == "https" or asked.scheme == "http" else None
            status, said = _ask(client, realm, service, scopes, mine)
        except httpx2.HTTPError as error:
            raise ImageError(f"cannot reach the token server of {self._registry}, {realm}: {error}") from error
        if status in (401, 403):
            raise denied(self._registry, scope, status)
        token = _token_of(said) if httpx2.codes.is_success(status) else None
        if token is None:
            raise ImageError(f"the token server of {self._registry}, {realm}, answered {status}, no token")
        return token


def _ask(
    client: httpx2.Client, realm: str, service: str, scopes: list[str], mine: Credentials | None
) -> tuple[int, bytes]:
    """The status and the body of the token server's answer."""
    query: dict[str, str | list[str]] = {"service": service} if service else {}
    if mine is not None and mine.is_token:
        form = {"grant_type": "refresh_token", "refresh_token": mine.password, "client_id": _CLIENT}
        asked = client.stream("POST", realm, data={**form, **query, "scope": " ".join(scopes)})
    else:
        auth = None if mine is None else httpx2.BasicAuth(mine.user, mine.password)
        asked = client.stream("GET", realm, params={**query, "scope": scopes}, auth=auth)
    with asked as response:
        return response.status_code, read_words(response)


def denied(registry: str, scope: str, status: int) -> ImageError:
    """That a registry, or its token server, does not let us do what `scope` says."""
    repository = scope.split(":")[1] if scope.count(":") >= 2 else ""
    if not repository:
        return ImageError(f"{registry} does not let us in ({status})", "are name and password right?")
    return ImageError(
        f"{registry}/{repository}: the registry does not let us in ({status})",
        f"is the name right? If the image is private: `dayfly login {registry}`",
    )


def _token_of(said: bytes) -> str | None:
    try:
        answer = json.loads(said)
        token = answer.get("token") or answer.get("access_token")
    except (ValueError, AttributeError, RecursionError):
        return None
    return token if isinstance(token, str) and token.isascii() and token.isprintable() else None
