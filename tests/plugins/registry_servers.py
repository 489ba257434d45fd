"""A real registry (Debian's docker-registry), its token server, and a line to it that breaks where a test says."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import json
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_DEADLINE_SECONDS = 30.0
USER, PASSWORD = "tester", "secret"
# What htpasswd(1) makes of them; registries take bcrypt alone.
_HTPASSWD = f"{USER}:$2b$05$QfKix29vxPQqm9qjUzleQujABR8rQawyK0FwoHe4cStKfNS5rc3wi\n"
SERVICE, ISSUER = "test-registry", "test-issuer"


@dataclass
class RegistryServer:
    """`host` is its name as images have it. Started, stopped and started again on the same port and data."""

    program: str
    directory: Path
    config: dict[str, Any] = field(default_factory=dict)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.port = self.port or _free_port()
        storage = {"filesystem": {"rootdirectory": str(self.directory / "data")}}
        own = {"version": 0.1, "storage": storage, "log": {"level": "error"}}
        http_config = {"addr": self.host, **self.config.get("http", {})}
        (self.directory / "config.yml").write_text(json.dumps({**own, **self.config, "http": http_config}))
        with open(self.directory / "log", "ab") as log:
            command = [self.program, "serve", str(self.directory / "config.yml")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while not _listens(self.port):
            assert self.process.poll() is None, (self.directory / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def start_registry(
    need_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., RegistryServer]]:
    """`start_registry(auth=…, http=…)`, in the words of its configuration file."""
    started: list[RegistryServer] = []

    def start(**config: Any) -> RegistryServer:
        server = RegistryServer(need_tool("docker-registry"), tmp_path_factory.mktemp("registry"), config)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def registry(start_registry: Callable[..., RegistryServer]) -> RegistryServer:
    """One that asks nobody who he is, and speaks no TLS."""
    return start_registry()


@pytest.fixture
def htpasswd(tmp_path: Path) -> dict[str, Any]:
    """The configuration of a registry that lets in USER with PASSWORD."""
    (tmp_path / "htpasswd").write_text(_HTPASSWD)
    return {"htpasswd": {"realm": "test", "path": str(tmp_path / "htpasswd")}}


@dataclass(frozen=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path

    @property
    def tls(self) -> dict[str, str]:
        """For the configuration of a registry."""
        return {"certificate": str(self.certificate), "key": str(self.key)}


@pytest.fixture(scope="session")
def certificate(need_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """One for 127.0.0.1, which nobody but itself vouches for."""
    directory = tmp_path_factory.mktemp("tls")
    made = Certificate(directory / "cert.pem", directory / "key.pem")
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.certificate)]
    command = [need_tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files]
    subprocess.run(command, check=True, capture_output=True)
    return made


@dataclass
class TokenServer:
    """Gives tokens for what it is asked to those who know PASSWORD, and to the others for nothing but `public/…`."""

    certificate: Certificate
    openssl: str
    url: str = ""
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    known_as: list[str | None] = field(default_factory=list)

    @property
    def auth(self) -> dict[str, Any]:
        """For the configuration of a registry."""
        root = str(self.certificate.certificate)
        return {"token": {"realm": self.url, "service": SERVICE, "issuer": ISSUER, "rootcertbundle": root}}

    def token(self, query: dict[str, list[str]], user: str | None) -> str:
        access = []
        for scope in (part for each in query.get("scope", []) for part in each.split()):
            kind, name, actions = scope.split(":")
            if user is not None or name.startswith("public/"):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
        der = subprocess.run(
            [self.openssl, "x509", "-in", str(self.certificate.certificate), "-outform", "DER"],
            check=True,
            capture_output=True,
        ).stdout
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user or "", "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now}
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_url64(json.dumps(header).encode())}.{_url64(json.dumps({**claims, 'access': access}).encode())}"
        signature = subprocess.run(
            [self.openssl, "dgst", "-sha256", "-sign", str(self.certificate.key)],
            input=signed.encode(),
            check=True,
            capture_output=True,
        ).stdout
        return f"{signed}.{_url64(signature)}"


@pytest.fixture
def token_server(certificate: Certificate, need_tool: Callable[[str], str]) -> Iterator[TokenServer]:
    """The one of the distribution's own documents ("Token Authentication Specification")."""
    tokens = TokenServer(certificate, need_tool("openssl"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            user = self._user()
            tokens.asked.append(query)
            tokens.known_as.append(user)
            body = json.dumps({"token": tokens.token(query, user)} if user != "" else {}).encode()
            self.send_response(401 if user == "" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _user(self) -> str | None:
            """None: nobody in particular; "": somebody who is not known."""
            kind, _, pair = self.headers.get("Authorization", "").partition(" ")
            if kind != "Basic":
                return None
            user, _, password = base64.b64decode(pair).decode().partition(":")
            return user if (user, password) == (USER, PASSWORD) else ""

        def log_message(self, *_: object) -> None:
            pass

    with _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        tokens.url = f"http://127.0.0.1:{server.server_port}/token"
        yield tokens


@dataclass
class Line:
    """A way to a registry that breaks. Each of `cuts` is for one connection: after how many bytes of answers it ends.

    `wrong_at`: the byte of all answers that is changed; `stalls_at`: the one behind which nothing comes until
    `goes_on`. Each is used up as it is met.
    """

    port: int
    listener: socket.socket
    cuts: list[int] = field(default_factory=list)
    wrong_at: int | None = None
    stalls_at: int | None = None
    goes_on: threading.Event = field(default_factory=threading.Event)
    answered: int = 0
    connections: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        left = self.cuts.pop(0) if self.cuts else None
        with near, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)) as far:
            threading.Thread(target=_pump, args=(near, far), daemon=True).start()
            while piece := far.recv(16 << 10):
                if self.stalls_at is not None and self.answered >= self.stalls_at:
                    self.goes_on.wait(_DEADLINE_SECONDS)
                    self.stalls_at = None
                if left is not None and len(piece) >= left:
                    near.sendall(self._spoilt(piece[:left]))
                    break
                left = None if left is None else left - len(piece)
                near.sendall(self._spoilt(piece))
            near.shutdown(socket.SHUT_RDWR)

    def _spoilt(self, piece: bytes) -> bytes:
        begin, self.answered = self.answered, self.answered + len(piece)
        if self.wrong_at is None or not begin <= self.wrong_at < self.answered:
            return piece
        at, self.wrong_at = self.wrong_at - begin, None
        return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


@pytest.fixture
def line(registry: RegistryServer) -> Iterator[Line]:
    """A way to `registry`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        made = Line(registry.port, listener)
        threading.Thread(target=made.run, daemon=True).start()
        yield made


@pytest.fixture
def skopeo(need_tool: Callable[[str], str]) -> Callable[..., None]:
    """`skopeo("copy", …)`, without TLS."""

    def run(*arguments: str) -> None:
        insecure = ["--src-tls-verify=false", "--dest-tls-verify=false"] if arguments[0] == "copy" else []
        command = [need_tool("skopeo"), arguments[0], "-q", *insecure, *arguments[1:]]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    return run


@pytest.fixture
def put(layout: Any, skopeo: Callable[..., None], registry: Any) -> Callable[..., str]:
    """Puts the image of these layers into the registry by skopeo; returns its manifest's digest there."""

    def put(name: str, *tars: bytes, **config: Any) -> str:
        path = layout.index(layout.image(tars, config))
        skopeo("copy", f"oci:{path}", f"docker://{registry.host}/{name}")
        return "sha256:" + hashlib.sha256(_raw(skopeo_raw(registry.host, name))).hexdigest()

    def skopeo_raw(host: str, name: str) -> list[str]:
        return ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/{name}"]

    return put


def _raw(command: list[str]) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=60).stdout


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(64 << 10):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def _serving(server: http.server.ThreadingHTTPServer) -> Iterator[http.server.ThreadingHTTPServer]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _url64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
