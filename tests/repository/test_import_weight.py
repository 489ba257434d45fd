"""What is loaded, not how long it takes: start-up time and fork cost follow the list of modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("redis", "rq", "pydantic", "rich", "pyroute2", "structlog", "bracex", "yaml", "asyncio")


def _roots_of_modules(code: str, *flags: str) -> set[str]:
    ending = "; import sys, json; print(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, *flags, "-c", code + ending], capture_output=True, text=True, check=True, cwd="/"
    )
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.mark.parametrize("arguments", [["--help"], ["help", "exit-codes"], ["run", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """`dayfly --help` costs a click program and nothing more."""
    code = f"""
import sys
sys.argv = ["dayfly", *{arguments!r}]
try:
    from dayfly.cli.main import main
    main()
except SystemExit:
    pass
"""
    loaded = _roots_of_modules(code.strip() + "\npass")
    assert not loaded & set(HEAVY)


def test_a_producer_loads_no_worker() -> None:
    """`import dayfly; dayfly.submit` brings in nothing that runs containers, and no terminal library."""
    loaded = _roots_of_modules("import dayfly; dayfly.submit")
    forbidden = {"pyroute2", "rich", "dayfly.worker", "dayfly.runtime"}
    assert not {name for name in loaded if name in forbidden or name.startswith(("dayfly.worker.", "dayfly.runtime."))}


@pytest.mark.parametrize("module", ["dayfly.worker.launcher", "dayfly.worker.keeper"])
def test_launcher_and_keeper_are_lean(module: str) -> None:
    """A keeper is a fork of the launcher for each job: its cost follows what the launcher has imported."""
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); import {module}"
    loaded = _roots_of_modules(code, "-I", "-S")
    forbidden = {*HEAVY, "logging", "subprocess", "tempfile", "click", "importlib.metadata", "email", "http", "ssl"}
    assert not loaded & forbidden
    assert not {name for name in loaded if name.startswith(("dayfly.queue", "dayfly.runtime.oci"))}
