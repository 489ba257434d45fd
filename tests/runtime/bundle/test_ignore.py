"""`.dayflyignore` means what `.gitignore` means: git itself is the oracle."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dayfly.runtime import ignore, syscalls
from dayfly.runtime.ignore import IgnoreError, IgnoreRules

_PATHS = (
    "a",
    "b.o",
    "ab",
    "build/x",
    "build/a",
    "src/a",
    "src/b.o",
    "src/build/keep",
    "src/deep/er/b.o",
    "src/deep/a",
    "doc/a-b",
    "doc/[x]",
    "sp ace",
    "trail ",
    "#hash",
    "!bang",
    "back\\slash",
    "grün",
    "a*b",
)

_LINES = st.lists(
    st.text(alphabet="abox.*?[]!/#\\- ", max_size=8)
    | st.sampled_from(
        [
            "**/a",
            "src/**",
            "src/**/a",
            "**",
            "/**",
            "**/",
            "build/",
            "/build",
            "!build/",
            "*.o",
            "!src/b.o",
            "[a-b]*",
            "[!a]*",
            "[^a]",
            "[[:alpha:]]",
            "[]x]*",
            "\\#hash",
            "\\!bang",
            "trail\\ ",
            "trail ",
            "gr?n",
            "gr??n",
            "a\\*b",
            "back\\\\slash",
            "doc/[[]x]",
            "a**b",
            "src/**b.o",
            "src/*/a",
            "deep",
            "deep/a",
        ]
    ),
    max_size=5,
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, need_tool: Callable[[str], str]) -> Path:
    """A tree under git, with nothing added to it."""
    need_tool("git")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for path in _PATHS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def _left_out_by_git(root: Path, rules: str) -> set[str]:
    (root / ".gitignore").write_text(rules, newline="")
    command = ["git", "-C", str(root), "-c", "core.quotePath=false", "ls-files", "-z", "--others", "--exclude-standard"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    (root / ".gitignore").unlink()
    return set(_PATHS) - set(listed.split("\0"))


def _ignored(directory: Path) -> list[str]:
    fd = os.open(directory, os.O_RDONLY)
    try:
        return sorted(ignore.ignored(fd))
    finally:
        os.close(fd)


def _left_out_by_us(root: Path, rules: str) -> set[str]:
    (root / ".dayflyignore").write_text(rules, newline="")
    tops = [path for path in _ignored(root) if path != ".git"]
    (root / ".dayflyignore").unlink()
    return {path for path in _PATHS if any(path == top or path.startswith(top + "/") for top in tops)}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=_LINES, end=st.sampled_from(["\n", "\r\n"]))
def test_what_is_left_out_is_what_git_leaves_out(lines: list[str], end: str, repository: Path) -> None:
    """Any rules, with either end of line."""
    rules = end.join(lines)
    assert _left_out_by_us(repository, rules) == _left_out_by_git(repository, rules)


def test_only_the_tops_are_named(tmp_path: Path) -> None:
    """A directory that is left out stands for all in it, and symlinks are not followed."""
    for path in ("build/x/y", "src/build/z", "keep"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "link").symlink_to("src")
    (tmp_path / ".dayflyignore").write_text("build\n")
    assert _ignored(tmp_path) == ["build", "src/build"]


def test_no_file_means_no_rules(tmp_path: Path) -> None:
    """Nor does one of another name, a symlink, a directory or a FIFO of that name."""
    (tmp_path / "real").write_text("*\n")
    (tmp_path / ".gitignore").write_text("*\n")
    assert _ignored(tmp_path) == []
    (tmp_path / ".dayflyignore").symlink_to("real")
    assert _ignored(tmp_path) == []
    (tmp_path / ".dayflyignore").unlink()
    os.mkfifo(tmp_path / ".dayflyignore")
    assert _ignored(tmp_path) == []


def test_names_are_bytes(tmp_path: Path) -> None:
    """A name that is not UTF-8 is matched, and comes back as the file system has it."""
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / name).touch()
    (tmp_path / ".dayflyignore").write_bytes(b"\xef\xbb\xbfcaf\xe9\n")
    assert _ignored(tmp_path) == [name]


def test_a_rule_for_directories_spares_files() -> None:
    """`x/`."""
    rules = IgnoreRules.parse(b"x/")
    assert rules.matches(b"a/x", is_directory=True)
    assert not rules.matches(b"a/x", is_directory=False)


def test_a_tree_that_is_too_deep_is_refused_and_leaves_no_descriptor(tmp_path: Path) -> None:
    """Three hundred levels are an error that says so, like any other of a directory that cannot be read."""
    (tmp_path / ".dayflyignore").write_text("*.o\n")
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(IgnoreError, match="nested more than 256 levels deep"):
        _ignored(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        (b"*a" * 40 + b"*b", b"a" * 255),
        (b"*?" * 40 + b"b", b"a" * 255),
        (b"[ac]*" * 40 + b"b", b"ca" * 127),
        (b"**/a/" * 40 + b"b", b"a/" * 2000 + b"a"),
        (b"**/*a*a*a*b", b"a" * 255 + b"/" + b"a" * 255),
    ],
)
def test_a_pattern_of_many_wildcards_costs_no_more_than_a_moment(pattern: bytes, path: bytes) -> None:
    """A line in a file of the job's would otherwise keep the agent for longer than the age of the universe."""
    rules = IgnoreRules.parse(pattern)
    assert not rules.matches(path, is_directory=False)
    assert IgnoreRules.parse(pattern.replace(b"b", b"a")).matches(path, is_directory=False)


def test_more_rules_than_could_be_applied_in_time_are_refused(tmp_path: Path) -> None:
    """An agent compares every name with every rule while its leases wait."""
    (tmp_path / ".dayflyignore").write_bytes(b"a\n" * 20_000)
    with pytest.raises(IgnoreError, match="more than 10000 lines"):
        _ignored(tmp_path)


def test_a_line_that_no_path_could_match_is_refused() -> None:
    """To translate a megabyte of sets took minutes."""
    assert IgnoreRules.parse(b"[!a]" * 1024)
    with pytest.raises(IgnoreError, match="more than 4096 letters"):
        IgnoreRules.parse(b"[!a]" * 1025)


def test_the_time_of_reading_the_rules_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten thousand lines of four thousand letters each are never all translated."""
    (tmp_path / ".dayflyignore").write_bytes(b"\n".join(b"[!%d]" % number * 500 for number in range(500)))
    monkeypatch.setattr(ignore, "_LONGEST_SECONDS", 0.05)
    with pytest.raises(IgnoreError, match=r"takes more than 0\.05 s"):
        _ignored(tmp_path)


@pytest.mark.host_root("mounts in the host's own namespace")
def test_what_is_mounted_below_is_not_looked_into(tmp_path: Path) -> None:
    """The job is given one mount, and nothing of those below it."""
    for path in ("here/secret", "there/secret"):
        (tmp_path / path).parent.mkdir()
        (tmp_path / path).touch()
    (tmp_path / ".dayflyignore").write_text("secret\n")
    syscalls.mount(str(tmp_path / "here"), str(tmp_path / "there"), None, syscalls.MS_BIND)
    try:
        assert _ignored(tmp_path) == ["here/secret"]
    finally:
        syscalls.umount2(str(tmp_path / "there"))
