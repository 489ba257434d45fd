"""How far a stage is: the layers that are there, the configuration that its image will have, its variables, its key."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dayfly.runtime.images.image import DEFAULT_PATH
from dayfly.runtime.images.manifest import Manifest, host_architecture, told_history

SHELL = ("/bin/sh", "-c")


# Given without an ARG of their own, and in no key and no history (docs.docker.com, "Predefined ARGs").
PROXIES = tuple(
    each
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for each in (name, name.lower())
)


@dataclass(frozen=True, slots=True)
class State:
    """After one step. `base` is the digest of an image of the store that has the layers, None: there are none yet.

    `config` is the image's whole configuration, without its layers; `arguments` the ARGs in scope. `key` names all that
    has led here: two states of one key are the same. `has_own_command`: this stage has a CMD.
    """

    base: str | None
    config: Mapping[str, Any]
    key: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    has_own_command: bool = False

    @property
    def settings(self) -> Mapping[str, Any]:
        """The part that jobs of the image obey."""
        found = self.config.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def environment(self) -> dict[str, str]:
        pairs = (pair.partition("=") for pair in self.settings.get("Env") or ())
        return {name: value for name, _, value in pairs}

    @property
    def variables(self) -> dict[str, str]:
        """What an instruction may use: ENV wins over ARG."""
        return {**self.arguments, **self.environment}

    @property
    def directory(self) -> str:
        return self.settings.get("WorkingDir") or "/"

    @property
    def user(self) -> str:
        return self.settings.get("User") or ""

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.settings.get("Shell") or SHELL)

    def with_settings(self, **changes: Any) -> "State":
        """Those that are None go."""
        settings = {name: value for name, value in {**self.settings, **changes}.items() if value is not None}
        return replace(self, config={**self.config, "config": settings})

    def with_environment(self, pairs: Mapping[str, str]) -> "State":
        merged = {**self.environment, **pairs}
        return self.with_settings(Env=[f"{name}={value}" for name, value in merged.items()])

    def with_history(self, created: str, created_by: str, *, has_layer: bool) -> "State":
        entry: dict[str, Any] = {"created": created, "created_by": created_by}
        if not has_layer:
            entry["empty_layer"] = True
        history = [*self.config.get("history", ()), entry]
        return replace(self, config={**self.config, "created": created, "history": history})

    def after(self, step: object) -> "State":
        """The same with the key of a further step."""
        return replace(self, key=key_of(self.key, step))


def key_of(*parts: object) -> str:
    """A digest of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def scratch() -> State:
    """An image of nothing."""
    settings = {"Env": [f"PATH={DEFAULT_PATH}"]}
    config = {"architecture": host_architecture(), "os": "linux", "config": settings, "history": []}
    return State(None, config, key_of("scratch", host_architecture()))


def state_of(manifest: Manifest) -> State:
    """An image of the store as the base of a stage."""
    config = {name: value for name, value in manifest.config.items() if name != "rootfs"}
    return State(manifest.digest, {**config, "history": told_history(manifest)}, key_of(manifest.digest))
