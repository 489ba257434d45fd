"""What a kept job wrote over its image: listed as Docker lists it, and made an image of."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dayfly.committing import commit
from dayfly.jobs.errors import ImageError, StoreError
from dayfly.jobs.state import Outcome
from dayfly.runtime.images.changes import changes
from dayfly.runtime.images.history import history
from dayfly.runtime.images.store import ImageStore
from dayfly.worker.kept_jobs import KeptJob

pytestmark = pytest.mark.kernel


@pytest.fixture
def image(worker, tar, need_tool, tmp_path):
    """The name of an image that has a shell, and files to change."""
    made = tar().directory("bin").directory("etc").directory("tmp", mode=0o1777).directory("old/inner")
    for path in ("etc/changed", "etc/deleted", "old/inner/file", "old/replaced"):
        made.file(path, b"old")
    made.file("bin/busybox", Path(need_tool("busybox")).read_bytes(), mode=0o755)
    for name in ("sh", "rm", "mkdir", "cat", "true", "chmod", "ln"):
        made.symlink(f"bin/{name}", "busybox")
    (tmp_path / "root.tar").write_bytes(made.bytes())
    return ImageStore(worker.home).import_(str(tmp_path / "root.tar"), "base").image.name


_SCRIPT = """
echo new > /etc/changed; rm /etc/deleted; echo made > /etc/made; chmod 4755 /etc/made
rm -r /old; mkdir -p /old/fresh; ln -s fresh /old/link; echo > /workspace/work
"""


def _run(worker, queue, image, script=_SCRIPT, **fields):
    """The kept job, once it has ended."""
    job_id = queue.submit(image=image, command=["/bin/sh", "-c", script], keep="always", **fields)
    result = queue.result(job_id)
    assert result.outcome is Outcome.SUCCEEDED, result.message
    queue.await_discarded(job_id)
    return KeptJob.find(worker.home, job_id)


def _changes(job):
    with job.root() as upper, job.image() as below:
        skip = {f"/{path}" for path in job.not_its_own(upper, below)}
        return [f"{each.kind} {each.path}" for each in changes(upper, below) if each.path not in skip]


def test_changes_are_listed_as_docker_lists_them(worker, queue, image, tmp_path):
    """Added, changed, deleted; nothing of what Dayfly mounts, and nothing is left attached or mounted."""
    (tmp_path / "data").mkdir()
    worker.start()
    job = _run(worker, queue, image, mounts=[f"{tmp_path}/data:/data/of/mine"])
    assert _changes(job) == [
        "C /etc",
        "C /etc/changed",
        "D /etc/deleted",
        "A /etc/made",
        "C /old",
        "A /old/fresh",
        "A /old/link",
    ]
    assert _changes(_run(worker, queue, image, "true")) == []


def test_a_kept_job_becomes_an_image_that_the_next_one_runs_on(worker, queue, image):
    """With its layer, its history, and the configuration of the one below."""
    worker.start()
    job = _run(worker, queue, image)
    store = ImageStore(worker.home)
    made = commit(store, job, "made:1", "by hand").image
    assert len(made.layers) == 2
    assert made.config.cmd == ("/bin/sh",)
    assert os.stat(f"{made.layers[0]}/etc/made").st_mode & 0o7777 == 0o4755
    assert [(step.comment, bool(step.layer)) for step in history(store, "made:1")] == [("by hand", True), ("", True)]
    assert "/bin/sh -c" in history(store, "made:1")[0].created_by
    look = "cat /etc/changed /etc/made; cat /etc/deleted /old/inner/file; test -d /old/fresh && echo is there"
    job_id = queue.submit(image="made:1", command=["/bin/sh", "-c", look])
    assert queue.result(job_id).outcome is Outcome.SUCCEEDED
    assert queue.log(job_id) == b"new\nmade\nis there\n"


def test_the_same_changes_are_the_same_image(worker, queue, image, monkeypatch):
    """With SOURCE_DATE_EPOCH, whenever they were made."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    worker.start()
    store = ImageStore(worker.home)
    digests = {commit(store, _run(worker, queue, image), f"made:{number}").image.digest for number in range(2)}
    assert len(digests) == 1
    assert store.named("made:1").config["created"] == "2023-11-14T22:13:20Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ImageError, match="SOURCE_DATE_EPOCH='yesterday' is no number"):
        commit(store, KeptJob.find(worker.home, queue.records.ls(limit=1)[0].id), "made:3")


def test_what_was_not_kept_or_has_no_image_says_so(worker, queue):
    """A job that left nothing, and one of the host's own root."""
    worker.start()
    job_id = queue.submit(script="true")
    queue.result(job_id)
    with pytest.raises(StoreError, match=rf"no disk of job {job_id} was kept .*--keep always"):
        KeptJob.find(worker.home, job_id)
    kept = queue.submit(script="true", keep="always")
    queue.result(kept)
    queue.await_discarded(kept)
    with pytest.raises(ImageError, match="ran on host, which is no image of the store"):
        commit(ImageStore(worker.home), KeptJob.find(worker.home, kept), "x")


def test_commands_say_the_same(worker, queue, image):
    """`dayfly changes` and `dayfly image commit`, on the worker's host."""
    worker.start()
    job = _run(worker, queue, image)
    worker.stop()

    def dayfly(*arguments):
        environment = {**os.environ, "DAYFLY_HOME": str(worker.home), "DAYFLY_URL": worker.url}
        command = [sys.executable, "-m", "dayfly", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    assert dayfly("changes", job.record.job_id).splitlines() == _changes(job)
    assert json.loads(dayfly("changes", "--json", job.record.job_id))[0] == {"kind": "C", "path": "/etc"}
    digest = dayfly("image", "commit", job.record.job_id, "made").strip()
    assert json.loads(dayfly("image", "inspect", "made"))["digest"] == digest
