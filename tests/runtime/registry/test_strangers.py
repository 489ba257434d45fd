"""A registry is a stranger: what it says is bounded, and it sends nobody into the network of the host."""

from __future__ import annotations

import http.server
import json
import resource
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry.address import host_of, parse_registry
from dayfly.runtime.registry.pulling import pull
from dayfly.runtime.registry.reach import check_reach
from dayfly.runtime.registry.settings import RegistrySettings

_ENDLESS_BYTES = 300 << 20


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[Any], None]], str]]:
    """Starts a registry that answers every GET as the function says; HOST:PORT."""
    servers = []

    def start(answer: Callable[[Any], None]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _endless(status: int, **headers: str) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(_ENDLESS_BYTES))
        handler.end_headers()
        try:
            for _ in range(_ENDLESS_BYTES >> 20):
                handler.wfile.write(bytes(1 << 20))
        except OSError:
            pass

    return answer


@pytest.mark.parametrize("status", [401, 404, 418])
def test_an_answer_without_end_is_not_taken_in(answering: Any, store: ImageStore, status: int) -> None:
    """An error is told in 64 KiB; nothing of 300 MiB is held."""
    host = answering(_endless(status))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError):
        pull(store, f"{host}/x", RegistrySettings())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_a_token_without_end_is_none(answering: Any, store: ImageStore) -> None:
    """The token server is the registry's choice."""
    realm = answering(_endless(200))

    def ask_for_token(handler: Any) -> None:
        handler.send_response(401)
        handler.send_header("WWW-Authenticate", f'Bearer realm="http://{realm}/token"')
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with pytest.raises(ImageError, match="answered 200, no token"):
        pull(store, f"{answering(ask_for_token)}/x", RegistrySettings())


@pytest.mark.parametrize(
    ("own", "target", "is_refused"),
    [
        ("93.184.215.14", "https://127.0.0.1/token", True),
        ("93.184.215.14", "https://169.254.169.254/latest", True),
        ("93.184.215.14", "https://10.0.0.1/blob", True),
        ("93.184.215.14", "https://[::1]/blob", True),
        ("93.184.215.14", "https://localhost/blob", True),
        ("93.184.215.14", "https://8.8.8.8/blob", False),
        ("93.184.215.14", "https://93.184.215.14/blob", False),
        ("127.0.0.1", "https://10.0.0.1/blob", False),
    ],
)
def test_a_registry_of_the_internet_sends_nobody_inside(own: str, target: str, is_refused: bool) -> None:
    """Neither for tokens nor for blobs; one that stands inside may name what stands there too."""
    if is_refused:
        with pytest.raises(ImageError, match="no address of the internet"):
            check_reach(own, httpx2.URL(target), "example.org")
    else:
        check_reach(own, httpx2.URL(target), "example.org")


@pytest.mark.parametrize(
    ("text", "registry", "host"),
    [
        ("docker.io", "docker.io", "registry-1.docker.io"),
        ("https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"),
        ("ghcr.io/", "ghcr.io", "ghcr.io"),
        ("https://ghcr.io", "ghcr.io", "ghcr.io"),
        ("myhost", "myhost", "myhost"),
        ("localhost:5000", "localhost:5000", "localhost:5000"),
    ],
)
def test_a_registry_is_named_as_docker_login_takes_it(text: str, registry: str, host: str) -> None:
    """A bare word is a host, and never Docker Hub."""
    assert (parse_registry(text), host_of(parse_registry(text))) == (registry, host)


@pytest.mark.parametrize("text", ["", "a b", "-x", "user@host", "https://"])
def test_what_is_no_registry_is_refused(text: str) -> None:
    """Before a password goes anywhere."""
    with pytest.raises(ImageError, match="is no registry"):
        parse_registry(text)


def test_a_helper_keeps_and_forgets_what_login_gives(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, nobody_in_particular: Any
) -> None:
    """Where Docker's file names one: else its old password would win over the new."""
    from dayfly.runtime.registry.credentials import (
        Credentials,
        find_credentials,
        forget_credentials,
        save_credentials,
    )

    kept = tmp_path / "kept"
    helper = tmp_path / "docker-credential-mine"
    helper.write_text(
        f"#!/bin/sh\ncase $1 in store) cat > {kept};; erase) rm {kept};; get) cat {kept} || exit 1;; esac\n"
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    nobody_in_particular.mkdir()
    (nobody_in_particular / "config.json").write_text(json.dumps({"credsStore": "mine"}))
    assert save_credentials("ghcr.io", Credentials("me", "new")) == "docker-credential-mine"
    assert find_credentials("ghcr.io") == Credentials("me", "new")
    assert "new" not in (nobody_in_particular / "config.json").read_text()
    assert forget_credentials("ghcr.io")
    assert find_credentials("ghcr.io") is None
