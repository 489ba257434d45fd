"""Dayfly as an ordinary user of this machine: with subordinate ids, and with no id but its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.user_namespace_limits import what_forbids

_AS_USER = Path(__file__).with_name("as_user.py")
_UID = 12345  # as as_user.py has it
DEADLINE_SECONDS = 120.0


@dataclass
class User:
    """Runs commands as the user; `home` is the user's own directory."""

    home: Path
    environment: dict[str, str]
    options: tuple[str, ...] = ()

    @property
    def dayfly_home(self) -> Path:
        return self.home / "dayfly"

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        cwd: Path | None = None,
        seconds: float = DEADLINE_SECONDS,
    ) -> Any:
        """To its end: a CompletedProcess with both streams as text."""
        words = [sys.executable, str(_AS_USER), *self.options, *options, *command]
        return subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=seconds,
            cwd=cwd or self.home,
            env=self.environment,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """A `dayfly` that goes on beside the test; its stdout is text."""
        words = [sys.executable, str(_AS_USER), *self.options, sys.executable, "-m", "dayfly", *arguments]
        return subprocess.Popen(
            words, cwd=self.home, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )

    def dayfly(self, *arguments: str, cwd: Path | None = None) -> Any:
        return self.run(sys.executable, "-m", "dayfly", *arguments, cwd=cwd)


@pytest.fixture
def home_of_user(nothing_left: None, need_tool: Any, lacks: Any) -> Iterator[Path]:
    """A directory that the user may reach: those of pytest are closed to others."""
    need_tool("newuidmap")
    if os.geteuid() != 0:
        lacks("root, who alone can make a user for a test")
    if (forbidden := what_forbids()) is not None:
        pytest.skip(forbidden)
    path = Path(tempfile.mkdtemp(prefix="dayfly-rootless-", dir="/tmp"))
    os.chown(path, _UID, _UID)
    yield path
    shutil.rmtree(path)


@pytest.fixture(params=[(), ("--single",)], ids=["subordinate_ids", "one_id"])
def user(home_of_user: Path, request: pytest.FixtureRequest) -> Iterator[User]:
    """The user, with an embedded stack that ends with the test."""
    yield from _user(home_of_user, request.param)


@pytest.fixture
def user_with_ids(home_of_user: Path) -> Iterator[User]:
    yield from _user(home_of_user, ())


def _user(home: Path, options: tuple[str, ...]) -> Iterator[User]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DAYFLY_", "XDG_"))}
    environment = {**kept, "HOME": str(home), "DAYFLY_HOME": str(home / "dayfly"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment |= {"TMPDIR": str(home), "HYPOTHESIS_STORAGE_DIRECTORY": str(home / "hypothesis")}
    user = User(home, environment, options)
    yield user
    if user.dayfly_home.exists():
        done = user.dayfly("down", "--now")
        assert done.returncode == 0, done.stderr
