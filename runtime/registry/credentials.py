"""Who we are at a registry, as Docker keeps it: config.json and its credential helpers (docs.docker.com, "login").

    {"auths": {"ghcr.io": {"auth": "base64 of user:password"}},
     "credHelpers": {"1234.dkr.ecr.eu-west-1.amazonaws.com": "ecr-login"}, "credsStore": "pass"}

Looked for where Docker and Podman have it; the first file that knows the registry decides. A password is never shown,
and `dayfly login` writes it into a file that only its owner may read.
"""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dayfly.jobs.errors import ImageError
from dayfly.runtime.registry.address import DOCKER_HUB

_HUBS_KEY = "https://index.docker.io/v1/"  # what Docker calls the hub in this file
_HELPER_SECONDS = 30.0
_TOKEN_USER = "<token>"


@dataclass(frozen=True, slots=True)
class Credentials:
    """`password` may be an identity token, which is given to the token server in the user's place (`is_token`)."""

    user: str
    password: str = field(repr=False)
    is_token: bool = False


def find_credentials(registry: str) -> Credentials | None:
    """None: nobody in particular. Raises ImageError for a file or a helper that is broken."""
    for path in config_files():
        config = _read(path)
        found = _from_helper(config, registry) or _from_auths(config, registry, path)
        if found is not None:
            return found
    return None


def config_files() -> Iterator[Path]:
    """Those that are there, in the order in which they are asked: Docker's, Podman's."""
    places = [_dockers()]
    if "REGISTRY_AUTH_FILE" in os.environ:
        places.insert(0, Path(os.environ["REGISTRY_AUTH_FILE"]))
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        places.append(Path(runtime) / "containers/auth.json")
    places.append(Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "containers/auth.json")
    return (path for path in places if path.is_file())


def save_credentials(registry: str, credentials: Credentials) -> str:
    """Keep those of one registry where Docker's file says: in it, or with its helper. Says where.

    Raises OSError, ImageError.
    """
    path = _dockers()
    config = _read(path) if path.exists() else {}
    key = _keys(registry)[0]
    if helper := _helper_of(config, registry):
        entry = {"ServerURL": key, "Username": credentials.user, "Secret": credentials.password}
        done = _ask_helper(helper, "store", json.dumps(entry), registry)
        if done.returncode:
            raise ImageError(f"{helper} did not keep it: {(done.stdout + done.stderr).strip()[:200]}")
        return helper
    pair = f"{credentials.user}:{credentials.password}".encode()
    auths = {**_object(config, "auths"), key: {"auth": base64.b64encode(pair).decode()}}
    _write(path, {**config, "auths": auths})
    return str(path)


def forget_credentials(registry: str) -> bool:
    """Take those of one registry away from there; False when there were none. Raises OSError, ImageError."""
    path = _dockers()
    config = _read(path) if path.exists() else {}
    helper = _helper_of(config, registry)
    has_erased = helper is not None and not _ask_helper(helper, "erase", _keys(registry)[0], registry).returncode
    auths = _object(config, "auths")
    left = {key: value for key, value in auths.items() if key not in _keys(registry)}
    if len(left) < len(auths):
        _write(path, {**config, "auths": left})
    return has_erased or len(left) < len(auths)


def _dockers() -> Path:
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def _from_auths(config: Mapping[str, Any], registry: str, path: Path) -> Credentials | None:
    auths = _object(config, "auths")
    entry = next((auths[key] for key in _keys(registry) if isinstance(auths.get(key), dict)), None)
    if not entry:
        return None
    if isinstance(entry.get("identitytoken"), str) and entry["identitytoken"]:
        return Credentials(_TOKEN_USER, entry["identitytoken"], is_token=True)
    try:
        user, colon, password = base64.b64decode(entry.get("auth", ""), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, TypeError) as error:
        remedy = f"`dayfly login {registry}` writes it anew"
        raise ImageError(f"{path}: the auth of {registry} is not base64 of USER:PASSWORD", remedy) from error
    return Credentials(user, password.rstrip("\0")) if colon else None


def _from_helper(config: Mapping[str, Any], registry: str) -> Credentials | None:
    program = _helper_of(config, registry)
    if program is None:
        return None
    done = _ask_helper(program, "get", _keys(registry)[0], registry)
    if done.returncode:
        return None  # it has none; its words are for people: "credentials not found in native keychain"
    try:
        answer = json.loads(done.stdout)
        user, secret = answer["Username"], answer["Secret"]
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(f"{program} gave no password of {registry} but something else") from error
    return Credentials(user, secret, is_token=user == _TOKEN_USER)


def _helper_of(config: Mapping[str, Any], registry: str) -> str | None:
    """The program that keeps the password of a registry, if one does."""
    helpers, store = _object(config, "credHelpers"), config.get("credsStore")
    name = next((helpers[key] for key in _keys(registry) if key in helpers), store)
    if not isinstance(name, str) or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
        return None
    return f"docker-credential-{name}"


def _ask_helper(program: str, action: str, text: str, registry: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [program, action], input=text, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ImageError(f"cannot ask {program} for the password of {registry}: {error}") from error


def _keys(registry: str) -> tuple[str, ...]:
    """What a registry may be called in such a file, ours first."""
    if registry == DOCKER_HUB:
        return (_HUBS_KEY, DOCKER_HUB, "index.docker.io", "registry-1.docker.io")
    return (registry, f"https://{registry}", f"http://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/")


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ImageError(f"cannot read {path}: {error}", "mend it, or take it away") from error
    if not isinstance(config, dict):
        raise ImageError(f"{path}: must hold a JSON object", "mend it, or take it away")
    return config


def _write(path: Path, config: Mapping[str, Any]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        json.dump(config, file, indent="\t")
    new.replace(path)


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}
