"""The shared fixtures keep what they promise."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
import redis


def test_valkey_is_a_real_empty_server(valkey: str) -> None:
    """Each test gets an empty server that keeps what it is given."""
    with contextlib.closing(redis.Redis.from_url(valkey)) as client:
        assert client.dbsize() == 0
        client.set("a", "b")
        assert client.get("a") == b"b"


def test_valkey_is_empty_again(valkey: str) -> None:
    """What one test wrote is not there in another, in either order."""
    test_valkey_is_a_real_empty_server(valkey)


def test_dayfly_home_is_the_tests_own(home: Path, tmp_path: Path) -> None:
    """No test can touch the machine's own Dayfly."""
    assert home.is_relative_to(tmp_path)
    assert os.environ["DAYFLY_HOME"] == str(home)


def test_a_daemon_that_outlives_its_test_is_found(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """nothing_left sees a process that has left its session and its parent (negative control)."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "plugins"), prepend=os.pathsep)
    pytester.makeconftest(Path(__file__).parents[1].joinpath("conftest.py").read_text())
    pytester.makepyfile(
        """
        import os, subprocess

        def test_leaves_a_daemon(nothing_left):
            subprocess.run(["sh", "-c", "setsid sleep 300 & echo $! >daemon"], check=True)
        """
    )
    result = pytester.runpytest_subprocess("--import-mode=importlib", "-p", "no:randomly")
    daemon = int(Path("daemon").read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(daemon, 9)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*processes: * sleep 300*"])


def test_a_quiet_test_passes_the_check(nothing_left: None) -> None:
    """A test whose children have ended is not accused."""
    subprocess.run(["true"], check=True)
