"""A way for other users to what a test made below pytest's own directory, which is closed to them (mode 0700).

Closed again afterwards: every other test has its directories there.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

OpenWay = Callable[[Path], None]


@pytest.fixture
def open_way() -> Iterator[OpenWay]:
    """Let everybody enter the directories above a path, as far as they are this user's, until the test ends."""
    modes: dict[Path, int] = {}

    def open_way(path: Path) -> None:
        for parent in path.parents:
            facts = parent.stat()
            if facts.st_uid == os.geteuid() and facts.st_mode & 0o011 != 0o011:
                modes.setdefault(parent, facts.st_mode & 0o7777)
                parent.chmod(facts.st_mode & 0o7777 | 0o011)

    yield open_way
    for path, mode in modes.items():
        path.chmod(mode)
