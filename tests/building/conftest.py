"""Builds on a store of the test's own, with a worker beside it, as `dayfly image build` has them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.images.store import ImageStore

_TOOLS = (
    "sh",
    "cat",
    "echo",
    "id",
    "chmod",
    "chown",
    "rm",
    "ls",
    "mkdir",
    "ln",
    "mv",
    "test",
    "true",
    "false",
    "cp",
    "env",
)


@dataclass
class Builder:
    """`build(text, …)` in the context `directory`; its stderr is kept in `said`."""

    home: Path
    directory: Path
    said: str = ""

    def write(self, name: str, content: str = "x", mode: int = 0o644) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)

    def build(self, text: str, *flags: str, tag: str = "built", fails: bool = False, **environment: str) -> str:
        """The digest, or, where it `fails`, nothing."""
        self.write("Containerfile", text)
        command = [sys.executable, "-m", "dayfly", "image", "build", "-t", tag, *flags, str(self.directory)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=200, env={**self.environment, **environment}
        )
        self.said = done.stderr
        assert (done.returncode == 0) != fails, done.stderr
        return done.stdout.strip()

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("DAYFLY_URL", "SOURCE_DATE_EPOCH")}
        return {**kept, "DAYFLY_HOME": str(self.home), "DAYFLY_IDLE": "60", "DAYFLY_IMAGES_PULL": "missing"}

    @property
    def store(self) -> ImageStore:
        return ImageStore(self.home)

    def down(self) -> None:
        subprocess.run([sys.executable, "-m", "dayfly", "down", "--now"], capture_output=True, env=self.environment)


@pytest.fixture
def builder(home: Path, nothing_left: None, tmp_path: Path, lacks: Callable[[str], Any]) -> Iterator[Builder]:
    if os.geteuid():
        lacks("root")
    (tmp_path / "context").mkdir()
    made = Builder(home, tmp_path / "context")
    yield made
    made.down()


@pytest.fixture
def base(builder: Builder, tar: Any, need_tool: Callable[[str], str], tmp_path: Path) -> str:
    """The name of an image with a shell and a few programs."""
    made = tar().directory("bin").directory("etc").directory("tmp", mode=0o1777).directory("usr/bin")
    made.file("etc/passwd", b"root:x:0:0::/:/bin/sh\nalice:x:1000:1001::/alice:/bin/sh\n")
    made.file("etc/group", b"root:x:0:\nstaff:x:50:\nalice:x:1001:\n")
    made.file("bin/busybox", Path(need_tool("busybox")).read_bytes(), mode=0o755)
    for name in _TOOLS:
        made.symlink(f"bin/{name}", "busybox")
    (tmp_path / "base.tar").write_bytes(made.bytes())
    return builder.store.import_(str(tmp_path / "base.tar"), "base").image.name
