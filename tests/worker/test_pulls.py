"""Jobs whose images the worker has not: pulled from a real registry while they wait, and other jobs run."""

import json
import subprocess

import pytest

from dayfly.jobs.spec import PullPolicy
from dayfly.jobs.state import Outcome
from dayfly.runtime.images.store import ImageStore
from dayfly.worker.settings import Allowed, Images

pytestmark = pytest.mark.kernel


@pytest.fixture
def worker(worker):
    """It asks registries, as an operator's own does who said nothing else."""
    worker.fields["images"] = Images()
    return worker


@pytest.fixture
def busybox(tar, need_tool):
    """A layer that a job can run in: one static program of several names."""
    made = tar().directory("bin").directory("etc").directory("tmp", mode=0o1777)
    with open(need_tool("busybox"), "rb") as file:
        made.file("bin/busybox", file.read(), mode=0o755)
    for name in ("sh", "cat", "sleep", "true"):
        made.symlink(f"bin/{name}", "busybox")
    return made.bytes()


@pytest.fixture
def versions(put, tar, busybox):
    """Puts a version of the image `app` into the registry: /etc/version says which."""

    def put_version(text):
        return put("app", busybox, tar().file("etc/version", text.encode()).bytes())

    return put_version


def _version(queue, **fields):
    """The version that a job ran on."""
    job_id = queue.submit(command=["/bin/cat", "/etc/version"], **fields)
    result = queue.result(job_id)
    assert result.outcome is Outcome.SUCCEEDED, result.message
    return queue.log(job_id).decode(), result.image.digest


def test_a_job_waits_for_its_image_and_the_next_finds_it(worker, queue, line, versions):
    """Its log says what it waits for; another job runs meanwhile; what came is not asked for again."""
    digest = versions("one")
    line.stalls_at = 300_000
    worker.start()
    job_id = queue.submit(image=f"{line.host}/app", command=["/bin/cat", "/etc/version"])
    queue.await_state(job_id, "starting")
    assert queue.result(queue.submit(script="true")).outcome is Outcome.SUCCEEDED
    line.goes_on.set()
    result = queue.result(job_id)
    assert (result.outcome, result.image.digest) == (Outcome.SUCCEEDED, digest), result.message
    lines = [(each.stream, each.data) for each in queue.stream.read(job_id)]
    assert lines[-1] == (1, b"one")
    assert all(stream == 3 and f"pulling {line.host}/app".encode() in data for stream, data in lines[:-1])
    asked = line.connections
    assert _version(queue, image=f"{line.host}/app") == ("one", digest)
    assert line.connections == asked


def test_the_policy_says_when_the_registry_is_asked(worker, queue, registry, versions):
    """missing: once; always: each time; never: not at all. A digest is always the same."""
    name = f"{registry.host}/app"
    worker.start()
    first = versions("one")
    rejected = queue.result(queue.submit(image=name, pull="never", command=["/bin/true"]))
    assert (rejected.outcome, f"no image '{name}'" in rejected.message) == (Outcome.REJECTED, True)
    assert _version(queue, image=name) == ("one", first)
    second = versions("two")
    assert _version(queue, image=name) == ("one", first)
    assert _version(queue, image=name, pull="always") == ("two", second)
    assert _version(queue, image=name) == ("two", second)
    assert _version(queue, image=f"{name}@{first}", pull="always") == ("one", first)


def test_a_retry_runs_on_the_same_bytes(worker, queue, registry, versions, tmp_path):
    """Though the tag means others by then, and is asked for each time."""
    name = f"{registry.host}/app"
    first = versions("one")
    marks = tmp_path / "marks"
    marks.mkdir()
    marks.chmod(0o777)
    worker.fields["images"] = Images(pull=PullPolicy.ALWAYS)
    worker.start()
    script = "cat /etc/version; if [ ! -e /marks/tried ]; then echo > /marks/tried; exit 9; fi"
    mount = {"source": str(marks), "target": "/marks", "writable": True}
    retry = {"max": 1, "when": ["failed"]}
    job_id = queue.submit(image=name, command=["/bin/sh", "-c", f"sleep 1; {script}"], mounts=[mount], retry=retry)
    queue.await_state(job_id, "running")
    second = versions("two")
    result = queue.result(job_id)
    assert (result.outcome, result.image.digest) == (Outcome.SUCCEEDED, first), result.message
    assert queue.log(job_id) == b"oneone"
    assert _version(queue, image=name) == ("two", second)


def test_a_job_that_waits_can_be_cancelled(worker, queue, line, versions):
    """It ends at once; the pull goes on for whoever asks next."""
    versions("one")
    line.stalls_at = 300_000
    worker.start()
    job_id = queue.submit(image=f"{line.host}/app", command=["/bin/true"])
    queue.await_state(job_id, "starting")
    queue.producer.cancel(job_id)
    assert queue.result(job_id).outcome is Outcome.CANCELLED
    line.goes_on.set()
    assert _version(queue, image=f"{line.host}/app")[0] == "one"


def test_a_worker_that_is_killed_meanwhile_loses_no_job(worker, queue, line, versions, await_true):
    """The next one begins anew, with what had come; none is run twice, no attempt is counted."""
    versions("one")
    line.stalls_at = 300_000
    worker.start()
    job_id = queue.submit(image=f"{line.host}/app", command=["/bin/cat", "/etc/version"])
    queue.await_state(job_id, "starting")
    await_true(lambda: list((worker.home / "images/packed").glob("*.part")))
    worker.kill()
    await_true(lambda: not _pulls())
    line.goes_on.set()
    worker.start()
    result = queue.result(job_id)
    assert (result.outcome, len(result.attempts)) == (Outcome.SUCCEEDED, 1), result.message
    assert queue.log(job_id) == b"one"


def test_a_worker_that_ends_gives_back_what_waits(worker, queue, line, versions, await_true):
    """And leaves no process."""
    versions("one")
    line.stalls_at = 300_000
    worker.start()
    job_id = queue.submit(image=f"{line.host}/app", command=["/bin/true"])
    queue.await_state(job_id, "starting")
    await_true(_pulls)
    worker.stop()
    assert queue.records.get(job_id).state == "queued"
    assert not _pulls()


def test_what_cannot_be_pulled_rejects_the_job_with_the_reason(worker, queue, registry, versions):
    """Of the job's image and of a service's."""
    versions("one")
    worker.start()
    service = {"image": f"{registry.host}/nope", "name": "db"}
    for path, fields in (("", {"image": service["image"]}), ("services[0].image: ", {"services": [service]})):
        result = queue.result(queue.submit(**{"script": "true", **fields}))
        assert result.outcome is Outcome.REJECTED
        assert result.message.startswith(
            f"{path}cannot get the manifest of {registry.host}/nope:latest: {registry.host} does not have it"
        )
    registry.stop()
    result = queue.result(queue.submit(image=f"{registry.host}/app", command=["/bin/true"]))
    assert "Connection refused" in result.message


@pytest.mark.attack("A6")
@pytest.mark.parametrize(
    ("globs", "is_allowed"),
    [
        (("*",), True),
        (("HOST/*",), True),
        (("HOST/app:latest",), True),
        (("HOST/app",), True),
        (("debian", "ghcr.io/*"), False),
    ],
)
def test_an_operator_says_which_images_jobs_may_name(worker, queue, registry, versions, globs, is_allowed):
    """By name, and before anything is fetched; `host` too is one."""
    versions("one")
    allowed = tuple(each.replace("HOST", registry.host) for each in globs)
    worker.fields["allow"] = Allowed(images=allowed)
    worker.start()
    result = queue.result(queue.submit(image=f"{registry.host}/app", command=["/bin/true"]))
    if is_allowed:
        assert result.outcome is Outcome.SUCCEEDED, result.message
    else:
        assert (
            f"the operator of this worker does not allow the image {registry.host}/app ([allow] images)"
            in result.message
        )


def test_an_allowed_name_leads_to_no_other_image_by_its_digest(worker, queue, registry, versions, tar, tmp_path):
    """A digest means an image of the store, whosever: where names are limited, that registry must know it."""
    versions("one")
    (tmp_path / "secret.tar").write_bytes(tar().file("etc/secret", b"x").bytes())
    secret = ImageStore(worker.home).import_(str(tmp_path / "secret.tar"), "secret").image.digest
    worker.fields["allow"] = Allowed(images=(f"{registry.host}/app",))
    worker.start()
    for name in (f"{registry.host}/app@{secret}", f"sha256:{secret[7:]}", "secret"):
        result = queue.result(queue.submit(image=name, command=["/bin/true"]))
        assert result.outcome is Outcome.REJECTED, name
    assert _version(queue, image=f"{registry.host}/app")[0] == "one"
    digest = ImageStore(worker.home).resolve(f"{registry.host}/app").digest
    assert _version(queue, image=f"{registry.host}/app@{digest}")[0] == "one"


def _pulls():
    """Processes that pull."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [each for each in listed.splitlines() if each.startswith("dayfly: pull")]


def test_the_digests_of_a_job_are_kept_with_it(worker, queue, registry, versions):
    """Whoever writes to Redis may write there too: what is no digest counts for nothing."""
    digest = versions("one")
    worker.start()
    job_id = queue.submit(image=f"{registry.host}/app", command=["/bin/sleep", "1"])
    queue.await_state(job_id, "running")
    kept = queue.producer._redis.hget(f"rq:job:{job_id}", "dayfly_images")
    assert json.loads(kept) == {f"{registry.host}/app": digest}
    queue.result(job_id)
    for rubbish in (b"[", b"[]", b'{"host": "x"}', b'{"host": "sha256:1"}', b"\xff"):
        job_id = queue.submit(script="true")
        queue.producer._redis.hset(f"rq:job:{job_id}", "dayfly_images", rubbish)
        assert queue.result(job_id).outcome is Outcome.SUCCEEDED
