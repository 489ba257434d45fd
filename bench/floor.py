"""floor.c, compiled and driven: one line in, one container, two figures out."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self


class Floor:
    def __init__(self, root: Path, state: Path) -> None:
        state.mkdir()
        program = state / "floor"
        source = Path(__file__).with_name("floor.c")
        subprocess.run(["gcc", "-O2", "-static", "-Wno-format-truncation", "-o", program, source], check=True)
        version = "v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1"
        pipe = subprocess.PIPE
        self._process = subprocess.Popen([program, root, state, version], stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=10)

    def run(self) -> dict[str, float]:
        """Milliseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        critical, total = self._process.stdout.readline().split()
        return {"C floor, start to exit": int(critical) / 1e6, "C floor, with making and removing": int(total) / 1e6}
