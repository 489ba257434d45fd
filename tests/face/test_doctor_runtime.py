"""What the doctor says of the OCI runtime that a worker was told to use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dayfly.config import load
from dayfly.doctor import examine
from dayfly.doctor_check import Check, Verdict

pytestmark = pytest.mark.kernel


def _look(runtime: str | None) -> Check | None:
    checks = examine(load({"runtime.oci": runtime}))
    return next((each for each in checks if each.name == "OCI runtime"), None)


def test_doctor_names_the_runtime_and_its_version(need_tool: Callable[[str], str]) -> None:
    """Where one is configured, and only there."""
    need_tool("runc")
    found = _look("runc")
    assert found is not None
    assert found.verdict is Verdict.OK
    assert found.finding.startswith("runc version ")
    assert _look(None) is None


def test_doctor_tells_a_missing_and_an_untested_runtime(tmp_path: Path) -> None:
    """Missing is what ends a worker; untested is a warning that says so."""
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho other 1.0\n")
    other.chmod(0o755)
    missing, untested = _look("no-such-runtime"), _look(str(other))
    assert missing is not None
    assert untested is not None
    assert (missing.verdict, untested.verdict) == (Verdict.MISSING, Verdict.WARNING)
    assert "[runtime] oci" in missing.remedy
    assert untested.finding == f"other 1.0, {other}"
