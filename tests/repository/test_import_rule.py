"""cli, server -> worker -> (queue | runtime) -> jobs, and a face that loads only what it needs."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("jobs", "queue", "runtime", "worker")
BIN = Path(sys.executable).parent


def test_the_import_rule_holds() -> None:
    """Every room imports only what lies below it."""
    checked = _lint_imports(ROOT)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("jobs", "import dayfly.queue.connection"),
        ("queue", "import dayfly.runtime.shape"),
        ("runtime", "from dayfly.queue import connection"),
        ("runtime", "import dayfly.worker.record"),
        ("worker", "import dayfly.cli.main"),
    ],
)
def test_a_planted_violation_is_caught(room: str, line: str, tmp_path: Path) -> None:
    """The rule sees through the links: one forbidden import makes it fail (negative control)."""
    for part in (*ROOMS, "src", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, tmp_path / part, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, tmp_path / part)
    (tmp_path / room / "planted.py").write_text(line + "\n")
    checked = _lint_imports(tmp_path)
    assert checked.returncode != 0, checked.stdout
    assert "planted" in checked.stdout


def test_no_room_imports_the_face() -> None:
    """The modules beside the rooms (client, config, embedded stack) may use them, never the other way round."""
    upward = {
        f"{path.relative_to(ROOT)}: {name}"
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        for name in _imported(path)
        if name.startswith("dayfly.") and name.split(".")[1:2] not in [[room] for room in ROOMS]
    }
    assert not upward


@pytest.mark.parametrize("line", ["import worker", "from runtime import shape", "import jobs.spec"])
def test_a_room_imported_by_its_bare_name_is_caught(line: str, tmp_path: Path) -> None:
    """From the root `import jobs` works by accident and makes a second copy of each class."""
    checked = _ruff(line + "\n", tmp_path / "sample.py")
    assert "TID251" in checked.stdout


def test_a_module_named_like_the_standard_library_is_caught(tmp_path: Path) -> None:
    """A005: a file that shadows a standard module where it lies (negative control for the rule being on)."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package/__init__.py").touch()
    checked = _ruff("", tmp_path / "package/logging.py")
    assert "A005" in checked.stdout


def test_types_are_checked_strictly() -> None:
    """mypy finds nothing in the package, links included."""
    checked = subprocess.run([sys.executable, "-m", "mypy", "-p", "dayfly"], cwd=ROOT, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "dayfly":
            names += [f"dayfly.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


def _lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, 'src'); from importlinter.cli import lint_imports_command as main; main()"
    command = [sys.executable, "-P", "-c", code, "--no-cache"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


def _ruff(text: str, path: Path) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    config = f"--config={ROOT / 'pyproject.toml'}"
    return subprocess.run([BIN / "ruff", "check", "--no-cache", config, path], capture_output=True, text=True)
