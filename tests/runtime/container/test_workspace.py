"""Whose /workspace is, and what is seen of the directory there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime import syscalls
from dayfly.runtime.bundle import freeze, path_of
from dayfly.runtime.container import Host
from dayfly.runtime.shape import Workspace

Run = Callable[..., Any]
_DAY = 1_700_000_000


def _directory(path: Path, owner: int, mode: int) -> Path:
    path.mkdir()
    (path / "file").write_text("x")
    for each in (path / "file", path):
        os.chown(each, owner, owner)
    path.chmod(mode)
    os.utime(path, (_DAY, _DAY))
    return path


@pytest.mark.parametrize("user", ["", "1000:1000", "1000:1001"])
def test_empty_workspace_belongs_to_the_jobs_user(run: Run, user: str) -> None:
    """A job without a directory writes in its /workspace, whoever it runs as."""
    ran = run("sh", "-c", "touch new && stat -c '%u:%g %a' . new", user=user)
    assert ran.stdout.split() == [user or "0:0", "755", user or "0:0", "644"], ran.stderr


@pytest.mark.parametrize(("owner", "user", "uid"), [(0, "", 0), (1234, "", 0), (0, "1000:1000", 1000), (7, "7:7", 7)])
def test_directory_keeps_its_mode_and_time_and_its_owner_is_the_jobs_user(
    run: Run, tmp_path: Path, owner: int, user: str, uid: int
) -> None:
    """The top of /workspace is as the directory on the host and the files below it, and the job writes in it."""
    source = _directory(tmp_path / "source", owner, 0o2750)
    script = "stat -c '%u:%g %a %Y' .; stat -c '%u:%g' file; touch new && echo written"
    ran = run("sh", "-c", script, workspace=Workspace(source=str(source)), user=user)
    assert ran.stdout.split() == [f"{uid}:{uid}", "2750", f"{_DAY}", f"{uid}:{uid}", "written"], ran.stderr


def test_frozen_directory_is_seen_as_the_live_one(run: Run, tmp_path: Path, host: Host) -> None:
    """What `submit` froze has the same owner, mode and time inside, and the job's user writes in it."""
    source = _directory(tmp_path / "source", 0, 0o700)
    tree = path_of(freeze(source, f"{host.home}/bundles"), f"{host.home}/bundles")
    script = "stat -c '%u:%g %a %Y' . file; touch new && echo written"
    runs = [run("sh", "-c", script, workspace=Workspace(source=each), user="1000:1000") for each in (tree, str(source))]
    assert runs[0].stdout == runs[1].stdout
    assert runs[0].stdout.split()[-1] == "written", runs[0].stderr


@pytest.mark.each_runtime
@pytest.mark.parametrize("user", ["", "1000:1001"])
def test_files_of_the_owner_can_be_changed_whichever_of_the_two_groups_they_have(
    run: Run, tmp_path: Path, user: str
) -> None:
    """A directory of alice:users, where files have that group or alice's own: the job changes both."""
    source = _directory(tmp_path / "source", 1234, 0o755)
    (source / "private").write_text("x")
    for path, group in ((source, 100), (source / "file", 100), (source / "private", 1234)):
        os.chown(path, 1234, group)
    script = "echo more >> file && echo more >> private && stat -c '%u:%g' . file"
    given = Workspace(source=str(source), own_group=1234)
    ran = run("sh", "-c", script, workspace=given, user=user)
    assert ran.stdout.split() == [user or "0:0"] * 2, ran.stderr


@pytest.mark.host_root("a directory is copied there, with what its user may read")
def test_group_of_root_is_not_given_with_a_users_directory(run: Run, tmp_path: Path) -> None:
    """What only root's group may read stays closed to a job whose directory is a user's."""
    source = _directory(tmp_path / "source", 1234, 0o755)
    (source / "secret").write_text("x")
    (source / "secret").chmod(0o640)
    os.chown(source, 1234, 0)
    ran = run("sh", "-c", "cat secret", workspace=Workspace(source=str(source)), user="1000:1000")
    assert "Permission denied" in ran.stderr


def test_directory_of_several_owners_is_seen_by_root_as_it_is(run: Run, tmp_path: Path) -> None:
    """Root's directory with a user's group shows both to a job of root, at its top as below."""
    source = _directory(tmp_path / "source", 0, 0o755)
    for path in (source, source / "file"):
        os.chown(path, 0, 27)
    ran = run("stat", "-c", "%u:%g", ".", "file", workspace=Workspace(source=str(source)))
    assert ran.stdout.split() == ["0:27", "0:27"]


@pytest.mark.parametrize(("owner", "user", "uid"), [(0, "", 0), (1234, "1000:1000", 1000)])
def test_hiding_a_file_changes_nothing_of_the_directories_around_it(
    run: Run, tmp_path: Path, owner: int, user: str, uid: int
) -> None:
    """Owner, mode and time of the directories that hold what .dayflyignore names are the host's."""
    source = _directory(tmp_path / "source", owner, 0o755)
    outer = _directory(source / "outer", owner, 0o711)
    _directory(outer / "inner", owner, 0o700)
    (source / ".dayflyignore").write_text("/outer/inner/file\n/outer/file\n")
    for path in (outer, source):
        os.utime(path, (_DAY, _DAY))
    given = Workspace(source=str(source), is_live=True)
    ran = run("sh", "-c", "stat -c '%u:%g %a %Y' . outer outer/inner; find -name file", workspace=given, user=user)
    seen = [f"{uid}:{uid} {mode} {_DAY}" for mode in ("755", "711", "700")]
    assert ran.stdout.splitlines() == [*seen, "./file"], ran.stderr


def test_copied_directory_keeps_its_mode_and_time(run: Run, tmp_path: Path) -> None:
    """Where the owners cannot be mapped the copy is the job's user's too, from the top on."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    source = _directory(tmp_path / "lower" / "source", 1234, 0o750)
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    syscalls.mount("overlay", str(tmp_path / "merged"), "overlay", 0, options)
    try:
        given = Workspace(source=f"{tmp_path}/merged/{source.name}")
        ran = run("sh", "-c", "stat -c '%u:%g %a %Y' . && touch new", workspace=given, user="7:8")
    finally:
        syscalls.umount2(str(tmp_path / "merged"))
    assert (ran.stdout, ran.exit_code) == (f"7:8 750 {_DAY}\n", 0), ran.stderr
