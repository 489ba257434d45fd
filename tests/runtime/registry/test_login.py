"""Who we are at a registry: nobody, a password, a token; from Docker's files, Podman's, a helper, `dayfly login`."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from dayfly.jobs.errors import ImageError
from dayfly.runtime.images.store import ImageStore
from dayfly.runtime.registry import transport
from dayfly.runtime.registry.address import parse_address
from dayfly.runtime.registry.authorization import Challenge
from dayfly.runtime.registry.credentials import Credentials, find_credentials, forget_credentials, save_credentials
from dayfly.runtime.registry.pulling import pull
from dayfly.runtime.registry.push import push
from dayfly.runtime.registry.session import try_out
from dayfly.runtime.registry.settings import RegistrySettings

_SETTINGS = RegistrySettings()
_TESTER = Credentials("tester", "secret")


@pytest.fixture
def image(store: ImageStore, tar: Any, tmp_path: Path) -> str:
    """The name of an image in the store."""
    (tmp_path / "root.tar").write_bytes(tar().file("f").bytes())
    return store.import_(str(tmp_path / "root.tar"), "image").image.name


def _push(store: ImageStore, image: str, name: str) -> str:
    with store.packaged(image) as packaged:
        return push(packaged, parse_address(name), _SETTINGS).digest


def test_a_password_is_asked_for_and_taken(
    start_registry: Any, htpasswd: Any, store: ImageStore, image: str, nobody_in_particular: Path
) -> None:
    """Basic, as htpasswd(1) has it: without one, and with a wrong one, nothing goes either way."""
    host = start_registry(auth=htpasswd).host
    for each in (None, Credentials("tester", "wrong")):
        if each is not None:
            save_credentials(host, each)
            with pytest.raises(ImageError, match=f"{host} does not let us in .401.; are name and password right"):
                try_out(host, host, RegistrySettings(), each)
        with pytest.raises(ImageError, match=rf"{host}/a: .* does not let us in .401.*`dayfly login {host}`"):
            _push(store, image, f"{host}/a")
    try_out(host, host, RegistrySettings(), _TESTER)
    file = Path(save_credentials(host, _TESTER))
    assert file == nobody_in_particular / "config.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    digest = _push(store, image, f"{host}/a")
    assert pull(store, f"{host}/a", _SETTINGS).image.digest == digest
    assert forget_credentials(host)
    assert not forget_credentials(host)
    with pytest.raises(ImageError, match="does not let us in"):
        pull(store, f"{host}/a", _SETTINGS)


def test_a_token_is_asked_for_once_for_what_is_wanted(
    start_registry: Any, token_server: Any, store: ImageStore, image: str
) -> None:
    """Bearer: anonymously, and with a password where that is not enough."""
    host = start_registry(auth=token_server.auth).host
    with pytest.raises(ImageError, match="does not let us in"):
        _push(store, image, f"{host}/private/a")
    token_server.asked.clear()
    save_credentials(host, _TESTER)
    _push(store, image, f"{host}/private/a")
    assert [query["scope"] for query in token_server.asked] == [["repository:private/a:pull,push"]] or len(
        token_server.asked
    ) <= 2
    assert {query["service"][0] for query in token_server.asked} == {"test-registry"}
    _push(store, image, f"{host}/public/a")
    forget_credentials(host)
    token_server.asked.clear()
    token_server.known_as.clear()
    pull(store, f"{host}/public/a", _SETTINGS)
    assert token_server.known_as == [None]
    assert token_server.asked[0]["scope"] == ["repository:public/a:pull"]
    with pytest.raises(ImageError, match="private/a: the registry does not let us in"):
        pull(store, f"{host}/private/a", _SETTINGS)


def test_tls_is_wanted_of_all_but_loopback_and_a_private_ca_is_taken(
    start_registry: Any,
    certificate: Any,
    store: ImageStore,
    image: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Where Docker keeps them, for that registry alone; the operator's `insecure` does without."""
    encrypted, plain = start_registry(http={"tls": certificate.tls}).host, start_registry().host
    for host in (encrypted, plain):
        _push(store, image, f"{host}/a")  # on loopback whoever answers is believed
    monkeypatch.setattr(transport, "is_loopback", lambda host: False)
    monkeypatch.setattr(transport, "_CERTIFICATES", (tmp_path / "certs.d",))
    with pytest.raises(ImageError, match="certificate verify failed"):
        pull(store, f"{encrypted}/a", _SETTINGS)
    with pytest.raises(ImageError, match=r"(?i)wrong.version.number"):
        pull(store, f"{plain}/a", _SETTINGS)
    insecure = RegistrySettings(insecure=frozenset((encrypted, plain)))
    pull(store, f"{encrypted}/a", insecure)
    pull(store, f"{plain}/a", insecure)
    directory = tmp_path / "certs.d" / encrypted
    directory.mkdir(parents=True)
    (directory / "ca.crt").write_bytes(certificate.certificate.read_bytes())
    pull(store, f"{encrypted}/a", _SETTINGS)
    (directory / "ca.crt").write_text("rubbish")
    with pytest.raises(ImageError, match="cannot use the certificates in"):
        pull(store, f"{encrypted}/a", _SETTINGS)


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        *((host, True) for host in ("localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9", "[::1]:5000", "[::1]")),
        *((host, False) for host in ("ghcr.io", "127.0.0.1.evil.io", "localhost.evil.io:80", "10.0.0.1", "[::2]:1")),
    ],
)
def test_loopback_is_this_host_by_name_or_address(host: str, is_loopback: bool) -> None:
    """127.0.0.0/8, ::1 and localhost, with or without a port."""
    assert transport.is_loopback(host) is is_loopback


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("config", "registry", "expected"),
    [
        ({"auths": {"ghcr.io": _auth("a", "b:c")}}, "ghcr.io", Credentials("a", "b:c")),
        ({"auths": {"https://ghcr.io": _auth("a", "b")}}, "ghcr.io", Credentials("a", "b")),
        ({"auths": {"https://index.docker.io/v1/": _auth("a", "b")}}, "docker.io", Credentials("a", "b")),
        ({"auths": {"ghcr.io": _auth("a", "b")}}, "quay.io", None),
        ({"auths": {"ghcr.io": {"identitytoken": "t"}}}, "ghcr.io", Credentials("<token>", "t", is_token=True)),
        ({"credHelpers": {"ecr.aws": "test"}}, "ecr.aws", Credentials("helped", "ecr.aws")),
        ({"credsStore": "test"}, "any.io", Credentials("helped", "any.io")),
        ({"credsStore": "none"}, "any.io", None),
        ({"credsStore": "test", "auths": {"ghcr.io": {}}}, "ghcr.io", Credentials("helped", "ghcr.io")),
        ({"credHelpers": {"x.io": "../../bin/sh"}}, "x.io", None),
    ],
)
def test_passwords_are_found_where_docker_has_them(
    config: dict[str, Any],
    registry: str,
    expected: Credentials | None,
    nobody_in_particular: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its config.json, with helpers: programs that are told a registry and answer with JSON."""
    for name, script in (
        ("test", 'read registry; printf \'{"Username": "helped", "Secret": "%s"}\' "$registry"'),
        ("none", "echo credentials not found; exit 1"),
    ):
        helper = tmp_path / f"docker-credential-{name}"
        helper.write_text(f"#!/bin/sh\n{script}\n")
        helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    nobody_in_particular.mkdir()
    (nobody_in_particular / "config.json").write_text(json.dumps(config))
    assert find_credentials(registry) == expected


def test_podmans_file_is_asked_after_dockers(nobody_in_particular: Path, tmp_path: Path) -> None:
    """And what is broken is told with its name, not passed over."""
    podmans = tmp_path / "config/containers/auth.json"
    podmans.parent.mkdir(parents=True)
    podmans.write_text(json.dumps({"auths": {"quay.io": _auth("a", "b"), "bad.io": {"auth": "?"}}}))
    assert find_credentials("quay.io") == Credentials("a", "b")
    with pytest.raises(ImageError, match=rf"{podmans}: the auth of bad.io is not base64 .*`dayfly login bad.io`"):
        find_credentials("bad.io")
    save_credentials("quay.io", Credentials("c", "d"))
    assert find_credentials("quay.io") == Credentials("c", "d")
    (nobody_in_particular / "config.json").write_text("{")
    with pytest.raises(ImageError, match=r"cannot read .*config.json"):
        find_credentials("quay.io")


def test_what_is_kept_leaves_the_rest_of_the_file_alone(nobody_in_particular: Path) -> None:
    """Docker's own settings stand in it too."""
    nobody_in_particular.mkdir()
    file = nobody_in_particular / "config.json"
    file.write_text(json.dumps({"psFormat": "x", "auths": {"a.io": _auth("a", "b")}}))
    save_credentials("b.io", _TESTER)
    forget_credentials("a.io")
    assert json.loads(file.read_text()) == {"psFormat": "x", "auths": {"b.io": _auth("tester", "secret")}}


def test_a_password_is_not_shown() -> None:
    """In no traceback and no log."""
    assert "secret" not in repr(_TESTER)


@pytest.mark.parametrize(
    ("header", "scheme", "parameters"),
    [
        ('Bearer realm="https://a/t",service="s",scope="repository:a/b:pull,push"', "bearer",
         {"realm": "https://a/t", "service": "s", "scope": "repository:a/b:pull,push"}),
        ('bearer Realm="x\\"y" , error=invalid_token', "bearer", {"realm": 'x"y', "error": "invalid_token"}),
        ("Basic", "basic", {}),
        ("", "", {}),
    ],
)  # fmt: skip
def test_a_challenge_is_read(header: str, scheme: str, parameters: dict[str, str]) -> None:
    """As RFC 9110 writes it."""
    assert Challenge.read(header) == Challenge(scheme, parameters)


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("x/y", "docker.io/x/y:latest"),
        ("docker.io/alpine:3", "docker.io/library/alpine:3"),
        ("index.docker.io/x/y", "docker.io/x/y:latest"),
        ("ghcr.io/x/y:tag", "ghcr.io/x/y:tag"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x/y__z", "localhost:5000/x/y__z:latest"),
        ("host:5000/x@sha256:" + "a" * 64, "host:5000/x@sha256:" + "a" * 64),
        ("x:1@sha256:" + "a" * 64, "docker.io/library/x:1@sha256:" + "a" * 64),
    ],
)
def test_a_name_is_taken_apart_as_docker_does(text: str, full: str) -> None:
    """The first part is a registry if it looks like one."""
    assert str(parse_address(text)) == full


@pytest.mark.parametrize("text", ["", "A", "x/Y", "x:", "x@sha256:1", "-x", "x//y", "a.io/", "x:" + "t" * 200, "x y"])
def test_what_is_no_name_is_refused(text: str) -> None:
    """With how one looks."""
    with pytest.raises(ImageError):
        parse_address(text)
