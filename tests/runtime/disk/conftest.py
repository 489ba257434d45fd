"""What tests of a job's disk need of the machine."""

import os
from collections.abc import Callable

import pytest


@pytest.fixture(scope="session")
def has_loops(need_tool: Callable[[str], str], lacks: Callable[[str], None]) -> None:
    need_tool("mke2fs")
    if not os.path.exists("/dev/loop-control"):
        lacks("loop devices")
