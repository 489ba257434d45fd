"""Nobody's passwords, and no patience."""

from __future__ import annotations

from pathlib import Path

import pytest

from dayfly.runtime.registry import download, session


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries are for registries in trouble, not for tests."""
    monkeypatch.setattr(session, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.01)


@pytest.fixture(autouse=True)
def nobody_in_particular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No password of whoever runs the tests is sent anywhere; Docker's file of a test is in the directory given."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"
