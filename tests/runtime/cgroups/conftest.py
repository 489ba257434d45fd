"""A real group for a test, and children that live in it."""

import os
import secrets
import signal
from collections.abc import Callable, Iterator

import pytest

from dayfly.runtime.cgroups import v1
from dayfly.runtime.cgroups.hierarchy import Hierarchy, open_hierarchy


@pytest.fixture
def hierarchy(needs_root: None) -> Iterator[Hierarchy]:
    """This host's hierarchy under a tag of the test's own, removed afterwards with whatever is left in it."""
    opened = open_hierarchy(f"test{secrets.token_hex(4)}")
    yield opened
    left = opened.existing()
    for token in left:
        opened.remove(token)
    opened.leave()
    assert not any(os.path.exists(directory) for directory in opened.describe()["directories"].values())
    assert left == [], "the test left groups behind"


@pytest.fixture
def token() -> str:
    return secrets.token_hex(8)


@pytest.fixture
def v1_only(hierarchy: Hierarchy) -> v1.Hierarchy:
    """Not a fault of the machine: most have version 2 alone."""
    if not isinstance(hierarchy, v1.Hierarchy):
        pytest.skip("this host has no version 1 control groups")
    return hierarchy


@pytest.fixture
def start() -> Iterator[Callable[[Callable[[], object]], int]]:
    """`start(function)` runs it in a forked child that is killed and reaped at the end; gives its pid."""
    pids = []

    def run(function: Callable[[], object]) -> int:
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(reader)
                function()
                os.write(writer, b"!")
                signal.pause()
            finally:
                os._exit(1)
        pids.append(pid)
        os.close(writer)
        os.read(reader, 1)  # the function is done, or the child is dead
        os.close(reader)
        return pid

    yield run
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ChildProcessError, ProcessLookupError):
            continue  # the test has seen to it
