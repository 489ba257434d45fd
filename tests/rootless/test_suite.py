"""The tests of containers, workers and attacks, run again with what a worker of an ordinary user has."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.host_root("it makes the user"),
]

_TESTS = {
    "containers": ("tests/runtime/container", "tests/runtime/seccomp", "tests/runtime/capabilities"),
    "attacks": ("tests/attacks",),
    # Publishing ports of the host is not for a user.
    "network": ("tests/runtime/network", "--ignore=tests/runtime/network/test_published.py"),
    "workers": (
        "tests/worker/test_adoption.py",
        "tests/worker/test_agent.py",
        "tests/worker/test_ends.py",
        "tests/worker/test_host_faults.py",
    ),
}


@pytest.mark.parametrize("tests", _TESTS.values(), ids=_TESTS)
def test_the_kernel_tests_pass_without_root(user_with_ids: Any, tests: tuple[str, ...], pytestconfig: Any) -> None:
    """What is left out is left out by a marker that says why, and most is not."""
    user = user_with_ids
    base = ("-p", "no:cacheprovider", "--basetemp", str(user.home / "t"), "-q", "-rs")
    command = (sys.executable, "-m", "pytest", *base, *tests)
    done = user.run(*command, options=("--inside",), cwd=pytestconfig.rootpath, seconds=850.0)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    passed, skipped = (int((re.search(rf"(\d+) {what}", done.stdout) or [0, 0])[1]) for what in ("passed", "skipped"))
    assert passed > 2 * skipped, done.stdout[-4000:]
    reasons = re.findall(r"^SKIPPED \[\d+\] \S+ (.*)$", done.stdout, re.MULTILINE)
    assert all(reason.startswith("rootless: ") for reason in reasons), reasons
    print(f"{passed} passed, {skipped} left out:\n" + "\n".join(sorted(set(reasons))))
