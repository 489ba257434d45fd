"""What of a live directory comes back as an artifact: what the job could read there, and of that directory only."""

import contextlib
import errno
import os
from pathlib import Path

import pytest

from dayfly.runtime import syscalls
from dayfly.worker.blob import blob_path
from dayfly.worker.host import host_id

pytestmark = [pytest.mark.kernel, pytest.mark.host_root("it gives files to several owners")]

_OWNER, _GROUP, _STRANGER = 1234, 100, 4321
# Tries to make what it may not read its own, then shows all that it can read.
_SCRIPT = """
mv roots moved; ln roots-group linked; cp -a strangers copied; chmod o+r roots-group; mv closed opened
exec 2> /dev/null
find . -type f -exec cat {} ";"
true
"""


def _given(path):
    facts = os.stat(path)
    return {"path": str(path), "host": host_id(), "device": facts.st_dev, "inode": facts.st_ino}


def _directory(path, owner):
    """Files of the owner, of root and of a stranger, for themselves, for a group and for all."""
    path.mkdir()
    for name, uid, gid, mode in (
        ("own", owner, owner, 0o600),
        ("own-of-no-group", owner, 4322, 0o600),
        ("roots", 0, 0, 0o600),
        ("roots-group", 0, 0, 0o640),
        ("strangers", _STRANGER, _STRANGER, 0o660),
        ("owns-group", owner, _GROUP, 0o640),
        ("group", _STRANGER, _GROUP, 0o640),
        ("all", 0, 0, 0o644),
    ):
        (path / name).write_text(f"{name}\n")
        os.chown(path / name, uid, gid)
        (path / name).chmod(mode)
    (path / "closed").mkdir()
    (path / "closed/file").write_text("closed\n")
    (path / "closed").chmod(0o700)
    os.chown(path, owner, _GROUP)
    return path


@pytest.mark.attack("A14")
@pytest.mark.parametrize(("owner", "user"), [(_OWNER, "0:0"), (_OWNER, "7:8"), (0, "0:0")])
def test_of_a_live_directory_comes_back_what_the_job_could_read(worker, queue, tmp_path, owner, user):
    """The keeper reads as root, and collects no file that the mapped mount hides from a job, however it is moved.

    A job of another user than root may read less than one of root, which it might as well have been.
    """
    worker.start()
    given = _given(_directory(tmp_path / "source", owner))
    job_id = queue.submit(command=["sh", "-c", _SCRIPT], dir=given, artifacts=["**"], user=user)
    result = queue.result(job_id)
    blobs = (blob_path(str(worker.store.path), each.sha256) for each in result.artifacts)
    collected = {Path(blob).read_text() for blob in blobs}
    readable = set(queue.log(job_id).decode().splitlines(keepends=True))
    assert collected == readable if user == "0:0" else collected >= readable, result.warnings
    assert {"own\n", "owns-group\n", "all\n"} <= readable
    assert {"own-of-no-group\n", "group\n"} <= collected
    hidden = {"roots\n", "roots-group\n", "strangers\n", "closed\n"}
    assert hidden & collected == (hidden if owner == 0 else set())
    unseen = [each for each in result.warnings if "the job itself could not read it" in each]
    assert bool(unseen) == (owner != 0)


@pytest.mark.attack("A14")
@pytest.mark.parametrize("taken_by", ["a link", "another directory", "nothing"])
def test_a_live_directory_that_is_swapped_while_the_job_runs_gives_nothing(worker, queue, tmp_path, taken_by):
    """Neither a link nor another directory in its place is collected from; what the job wrote is, and a warning says
    why the rest is not. Left alone it gives its files (the negative control)."""
    worker.start()
    source, host, told = (tmp_path / name for name in ("source", "host", "told"))
    for path in (source, host, told):
        path.mkdir()
        (path / "shadow").write_text(path.name)
    given = _given(source)
    script = "echo begun; until test -e /told/go; do sleep 0.02; done; echo > written"
    job_id = queue.submit(script=script, dir=given, artifacts=["shadow", "written"], mounts=[f"{told}:/told"])
    queue.await_state(job_id, "running")
    assert next(iter(queue.stream.follow(job_id))) is not None
    if taken_by != "nothing":
        source.rename(tmp_path / "aside")
        source.symlink_to(host) if taken_by == "a link" else host.rename(source)
    (told / "go").touch()
    result = queue.result(job_id)
    expected = ["written"] if taken_by != "nothing" else ["shadow", "written"]
    assert [each.path for each in result.artifacts] == expected, result.warnings
    reasons = {"a link": os.strerror(errno.ELOOP), "another directory": "something else has taken its place"}
    if taken_by in reasons:
        (why,) = [each for each in result.warnings if f"artifacts in {source} left out" in each]
        assert reasons[taken_by] in why


@pytest.mark.attack("A14")
def test_a_copied_directory_has_only_what_the_job_may_read(worker, queue, tmp_path):
    """Where the owners cannot be mapped the keeper copies as root: no more than the mapping would have shown, and
    what the job has deleted of the copy does not come back as an artifact."""
    worker.start()
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    _directory(tmp_path / "lower/source", _OWNER)
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    syscalls.mount("overlay", str(tmp_path / "merged"), "overlay", 0, options)
    try:
        script = "rm all; find . -type f -exec cat {} ';'"
        job_id = queue.submit(script=script, dir=_given(tmp_path / "merged/source"), artifacts=["**"])
        result = queue.result(job_id)
    finally:
        syscalls.umount2(str(tmp_path / "merged"))
    expected = {"own", "owns-group", "own-of-no-group", "group"}
    assert set(queue.log(job_id).decode().split()) == expected
    assert {each.path for each in result.artifacts} == expected
    assert any("was copied" in each and "; 4 files could not be read" in each for each in result.warnings)


@pytest.mark.attack("A14")
@pytest.mark.parametrize("is_mapped", [True, False], ids=["mapped", "copied"])
def test_what_is_mounted_below_is_neither_shown_nor_collected(worker, queue, tmp_path, is_mapped):
    """A bind mount has the same device number as what it lies on; the job is given one mount, without those below."""
    worker.start()
    for name in ("lower/source/mnt", "upper", "work", "merged", "private"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "private/secret").write_text("secret")
    (tmp_path / "private").chmod(0o700)
    (tmp_path / "lower/source/file").touch()
    (tmp_path / "lower/source/empty").touch()
    top = tmp_path / ("lower" if is_mapped else "merged")
    with contextlib.ExitStack() as mounts:

        def mount(source, target, kind, flags, options=None):
            syscalls.mount(str(source), str(target), kind, flags, options)
            mounts.callback(syscalls.umount2, str(target))

        if not is_mapped:
            options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
            mount("overlay", tmp_path / "merged", "overlay", 0, options)
        mount(tmp_path / "private", top / "source/mnt", None, syscalls.MS_BIND)
        mount(tmp_path / "private/secret", top / "source/file", None, syscalls.MS_BIND)
        job_id = queue.submit(script="ls mnt; cat file", dir=_given(top / "source"), artifacts=["**"])
        result = queue.result(job_id)
    assert queue.log(job_id) == b""
    (path,) = {each.path for each in result.artifacts} - {"file"}  # an empty one, where it was copied
    assert path == "empty"
    assert all(each.size_bytes == 0 for each in result.artifacts)
    said = "something is mounted there" if is_mapped else "could not be read"
    assert any(said in each for each in result.warnings), result.warnings
