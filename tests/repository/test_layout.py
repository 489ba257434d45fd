"""The layout that the import system, the type checker and the reader rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("jobs", "queue", "runtime", "worker")
LINE_LIMIT = 350


def _tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def test_standard_queue_wins_at_the_root() -> None:
    """From the repository root `import queue` is the standard library's, and redis and rq live."""
    code = "import queue, redis, rq; assert hasattr(queue, 'SimpleQueue')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_has_an_init_file(room: str) -> None:
    """A room with an __init__.py would shadow the standard library (queue) or make a second package of its name."""
    assert not list((ROOT / room).rglob("__init__.py"))


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_linked_relatively_and_says_what_it_is(room: str) -> None:
    """The links work wherever the clone lies; the README stands in for the docstring that a room cannot have."""
    assert (ROOT / "src/dayfly" / room).readlink() == Path("../..") / room
    lines = (ROOT / room / "README.md").read_text().splitlines()
    assert 3 <= len(lines) <= 60, "one screen"


def test_no_file_is_longer_than_its_subject() -> None:
    """A source file of more than 350 lines has two subjects."""
    too_long = {
        str(path.relative_to(ROOT)): length
        for path in _tracked("*.py", "*.lua", "*.sh")
        if (length := len(path.read_text().splitlines())) > LINE_LIMIT
    }
    assert not too_long


def test_tests_are_no_package() -> None:
    """--import-mode=importlib needs none, and an __init__.py would put tests/queue in the standard library's way."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_module_has_a_catch_all_name() -> None:
    """A file is named after its subject."""
    banned = {"utils.py", "util.py", "common.py", "base.py", "helpers.py", "misc.py"}
    assert not [path for path in _tracked("*.py") if path.name in banned]


def test_no_home_or_work_directory_is_named() -> None:
    """No file of ours names a path of somebody's machine."""
    needles = ("/" + "work/", "/" + "home/", "/root/" + ".", "C:" + "\\")
    named = [
        f"{path.relative_to(ROOT)}: {needle}"
        for path in _tracked("*.py", "*.md", "*.toml", "*.sh", "*/run", ".ci/run", "docker-compose-free/*")
        for needle in needles
        if needle in path.read_text(errors="replace") and path != Path(__file__)
    ]
    assert not named
