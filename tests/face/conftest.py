"""The command `dayfly` with an embedded stack of its own, shared by the tests of one file."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


class Command:
    """Runs `dayfly` in a directory, with a home of its own and nothing else of Dayfly's in the environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.here = home.with_name(f"{home.name}-here")
        self.here.mkdir(parents=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DAYFLY_")}
        self.environment["DAYFLY_HOME"] = str(home)
        self.environment["DAYFLY_NETWORK_BRIDGE"] = "false"  # this machine's own network is nobody's to change
        self.argv = [sys.executable, "-m", "dayfly"]

    def __call__(
        self, *arguments: str, cwd: Path | None = None, stdin: bytes = b"", timeout: float = 60.0, **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*self.argv, *arguments],
            cwd=cwd or self.here,
            input=stdin,
            capture_output=True,
            check=False,
            timeout=timeout,
            env={**self.environment, **environment},
        )

    @staticmethod
    def own_lines(stderr: bytes) -> list[str]:
        """What Dayfly itself said."""
        return [line for line in stderr.decode().splitlines() if line.startswith("dayfly: ")]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.argv, *arguments],
            **{
                "cwd": self.here,
                "env": self.environment,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **options,
            },
        )


@pytest.fixture(scope="module")
def dayfly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("face") / "home")
    yield command
    assert command("down", "--now").returncode == 0


@pytest.fixture
def dayfly_in() -> Callable[[Path], Command]:
    """`dayfly_in(home)` is the command for another home."""
    return Command
