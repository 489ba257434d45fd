"""A job runs on the image that its name meant when it was enqueued."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import dayfly
from dayfly.runtime.images.store import ImageStore

pytestmark = pytest.mark.kernel


@pytest.fixture
def client(dayfly_in: Any, home: Path, nothing_left: None) -> Iterator[dayfly.Client]:
    """Of an embedded stack of the test's own."""
    command = dayfly_in(home)
    with dayfly.Client() as client:
        yield client
    assert command("down").returncode == 0


def _give(home: Path, tar: Any, need_tool: Any, text: str, tmp_path: Path) -> str:
    """Let the name `app` mean an image with this in /etc/version; its digest."""
    made = tar().directory("bin").file("etc/version", text.encode())
    made.file("bin/cat", Path(need_tool("busybox")).read_bytes(), mode=0o755)
    (tmp_path / text).write_bytes(made.bytes())
    return ImageStore(home).import_(str(tmp_path / text), "app").image.digest


def test_a_name_that_changes_meanwhile_changes_no_job(
    client: dayfly.Client, home: Path, tar: Any, need_tool: Any, tmp_path: Path
) -> None:
    """Nor its retry; a later job has the new one, and so has one that wants what the name means as it runs."""
    first = _give(home, tar, need_tool, "one", tmp_path)
    words = ["/bin/cat", "/etc/version"]
    early = client.submit(image="app", command=words, delay=2)
    service = {"image": "app", "name": "db", "command": ["/bin/cat"]}
    with_service = client.submit(image="host", command="true", services=[service], delay=3600)
    second = _give(home, tar, need_tool, "two", tmp_path)
    assert client.records.get(early.id).document["image"] == f"app@{first}"
    assert client.records.get(with_service.id).document["services"][0]["image"] == f"app@{first}"
    with_service.cancel()
    late = client.submit(image="app", command=words)
    for job, text, digest in ((early, b"one", first), (late, b"two", second)):
        result = job.result()
        assert (result.image.digest, result.is_success) == (digest, True), result.message
        assert b"".join(line.data for line in job.logs()) == text
    again = client.job(client.producer.retry(early.id)).result()
    assert again.image.digest == first


def test_what_has_no_digest_here_stays_as_it_is(client: dayfly.Client) -> None:
    """The host's own, a directory, a name that nobody knows: the worker says what comes of it."""
    for image in ("host", "/srv/nowhere", "unknown:1"):
        job = client.submit(image=image, command="true", delay=3600)
        assert client.records.get(job.id).document["image"] == image
        job.cancel()
