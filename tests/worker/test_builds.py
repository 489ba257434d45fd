"""Builds as jobs of the queue: built by the worker that claims them, each RUN a job that this worker alone may run."""

import dataclasses
import subprocess
from pathlib import Path

import pytest

from dayfly.directory import frozen
from dayfly.jobs.build import BUILDS_LABEL, WORKER_LABEL
from dayfly.jobs.door import read_job
from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.signatures import Signing, SigningKey, TrustedKeys
from dayfly.jobs.state import Outcome
from dayfly.queue import keys
from dayfly.queue.key_files import write_key
from dayfly.queue.producer import Producer
from dayfly.runtime.images.store import ImageStore
from dayfly.worker.settings import Allowed, WorkerSettings

pytestmark = pytest.mark.kernel

_ALLOWED = Allowed(builds=("mine/*",))


@pytest.fixture
def worker(worker):
    """Its operator lets others build images `mine/…`, and nothing else."""
    worker.fields["allow"] = _ALLOWED
    return worker


@pytest.fixture
def base(worker, tar, need_tool, tmp_path):
    """The name of an image with a shell."""
    made = tar().directory("bin").directory("etc").directory("tmp", mode=0o1777)
    made.file("bin/busybox", Path(need_tool("busybox")).read_bytes(), mode=0o755)
    for name in ("sh", "cat", "sleep", "echo", "ls"):
        made.symlink(f"bin/{name}", "busybox")
    (tmp_path / "base.tar").write_bytes(made.bytes())
    return ImageStore(worker.home).import_(str(tmp_path / "base.tar"), "base").image.name


@pytest.fixture
def build(worker, queue, tmp_path):
    """Submits a build of this Containerfile, and of the files in `context`; returns the job's id."""
    (tmp_path / "context").mkdir()

    def submit(text, name="mine/app", producer=None, **fields):
        made = {key: fields.pop(key) for key in ("args", "push", "use_cache", "epoch") if key in fields}
        document = {"build": {"name": name, "containerfile": text, **made}, **fields}
        document["dir"] = frozen(str(tmp_path / "context"), worker.home)
        return (producer or queue.producer).submit(read_job(document))

    return submit


def _said(queue, job_id):
    return b"".join(line.data for line in queue.stream.read(job_id)).decode()


def test_a_build_of_the_queue_makes_an_image(worker, queue, build, base, tmp_path):
    """Its log is that of its steps, its result names the digest; jobs run on it by its name at once."""
    (tmp_path / "context/file").write_text("from the context")
    worker.start()
    job_id = build(
        f"FROM {base}\nARG WHO=nobody\nCOPY file /file\nRUN echo said $WHO; echo built > /made\n"
        "RUN --mount=type=cache,target=/c --mount=type=bind,target=/b ls /b > /c/list; cat /c/list > /list\n",
        args={"WHO": "somebody"},
    )
    result = queue.result(job_id)
    assert (result.outcome, result.exit_code) == (Outcome.SUCCEEDED, 0), result.message
    assert result.image.digest == ImageStore(worker.home).resolve("mine/app").digest
    assert "said somebody\n" in _said(queue, job_id)
    assert "step 4 of 5: RUN" in _said(queue, job_id)
    seen = queue.submit(image="mine/app", command=["/bin/cat", "/file", "/made", "/list"])
    assert queue.result(seen).outcome is Outcome.SUCCEEDED
    assert queue.log(seen) == b"from the contextbuilt\nfile\n"


def test_a_step_that_fails_fails_the_build(worker, queue, build, base):
    """With the line, and no image."""
    worker.start()
    for text, reason in (
        (f"FROM {base}\nRUN echo well; exit 3\n", "line 2: RUN: echo well; exit 3 failed"),
        (f"FROM {base}\nFLY away\n", "line 2: "),
    ):
        result = queue.result(build(text))
        assert (result.outcome, result.exit_code) == (Outcome.FAILED, 1)
        assert result.message.startswith(reason), result.message
    assert not [each.name for each in ImageStore(worker.home).ls() if each.name.startswith("mine")]


@pytest.mark.parametrize(
    ("text", "fields", "reason"),
    [
        ("FROM base\nRUN true\n", {"name": "theirs/app"}, "does not allow the name theirs/app ([allow] builds)"),
        ("FROM debian:12\n", {}, "does not allow the image debian:12 ([allow] images)"),
        ("FROM base\nCOPY --from=debian:12 /etc /etc\n", {}, "does not allow the image debian:12 ([allow] images)"),
        ("FROM base\nADD http://127.0.0.1:1/x /x\n", {}, "a build of the queue fetches nothing itself"),
        ("FROM base\nRUN --network=host echo\n", {}, "([allow] network_host)"),
        ("FROM base\nRUN echo\n", {"network": "host"}, "([allow] network_host)"),
    ],
)
def test_a_build_may_no_more_than_a_job(worker, queue, build, base, text, fields, reason):
    """What an operator does not allow to jobs, a Containerfile does not have either."""
    worker.fields["allow"] = dataclasses.replace(_ALLOWED, images=("base",))
    worker.start()
    result = queue.result(build(text, **fields))
    assert result.outcome in (Outcome.REJECTED, Outcome.FAILED)
    assert reason in result.message


def test_where_nothing_is_allowed_nothing_is_built(worker, queue, build, base):
    """No such worker claims a build; one that finds it in a list of its own refuses it."""
    worker.fields["allow"] = Allowed()
    worker.start()
    waiting = build(f"FROM {base}\n")
    assert queue.result(queue.submit(script="true")).outcome is Outcome.SUCCEEDED
    assert queue.records.get(waiting).state == "queued"
    redis, theirs, ours = queue.producer._redis, f"default@0:0:0:l{BUILDS_LABEL}", "default@0:0:0"
    redis.hset(f"rq:job:{waiting}", "origin", ours)
    redis.rename(f"rq:queue:{theirs}", f"rq:queue:{ours}")
    redis.zadd(keys.index("default"), {ours: redis.zscore(keys.index("default"), theirs)})
    queue.submit(script="true")  # which wakes the worker
    result = queue.result(waiting)
    assert result.outcome is Outcome.REJECTED
    assert "does not allow builds ([allow] builds)" in result.message


def test_nobody_else_may_have_the_mounts_of_a_step(worker, queue, build, base, tmp_path):
    """The caches of builds lie where only steps that this very worker has signed may mount them from."""
    worker.start()
    assert queue.result(build(f"FROM {base}\nRUN --mount=type=cache,target=/c echo x > /c/x\n")).is_success
    cache = next((worker.home / "build-cache").iterdir())
    label = {WORKER_LABEL: WorkerSettings(worker.home, worker.url, "w").label}
    mount = {"source": str(cache), "target": "/c"}
    for producer in (queue.producer, Producer(queue.producer._redis, lambda: _signing(generate(KeyKind.HMAC)))):
        document = {"image": base, "command": ["/bin/cat", "/c/x"], "mounts": [mount], "labels": label}
        result = queue.result(producer.submit(read_job(document)))
        assert result.outcome is Outcome.REJECTED
        assert "([allow] mounts)" in result.message


def test_steps_run_where_only_signed_jobs_do(worker, queue, build, base, tmp_path):
    """The build is signed by who submits it, its steps by the worker."""
    key = generate(KeyKind.HMAC)
    write_key(tmp_path / "trusted/0.key", key)
    worker.fields["trusted_keys"] = (tmp_path / "trusted",)
    worker.start()
    assert queue.result(build(f"FROM {base}\nRUN echo\n")).outcome is Outcome.REJECTED
    signed = Producer(queue.producer._redis, lambda: _signing(key))
    result = queue.result(build(f"FROM {base}\nRUN echo x > /x\n", producer=signed))
    assert result.outcome is Outcome.SUCCEEDED, result.message


def test_more_builds_than_slots_all_end(worker, queue, build, base):
    """A build takes no slot from its own steps."""
    worker.fields |= {"slots": 1, "cpus": 1.0}
    worker.start()
    ids = [build(f"FROM {base}\nRUN echo {number} > /n\n", name=f"mine/{number}") for number in range(3)]
    other = queue.submit(script="true")
    assert [queue.result(each).outcome for each in (*ids, other)] == [Outcome.SUCCEEDED] * 4


def test_an_allowed_name_leads_to_no_other_image_in_a_build(worker, queue, build, base, tar, tmp_path):
    """By its digest; as in a job's own image."""
    (tmp_path / "secret.tar").write_bytes(tar().file("etc/secret", b"x").bytes())
    store = ImageStore(worker.home)
    secret = store.import_(str(tmp_path / "secret.tar"), "secret").image.digest
    own = store.resolve("base").digest
    worker.fields["allow"] = dataclasses.replace(_ALLOWED, images=("base",))
    worker.start()
    for text in (f"FROM base@{secret}\n", f"FROM base\nCOPY --from=base@{secret} /etc/secret /x\n"):
        result = queue.result(build(text))
        assert not result.is_success
        assert "is known here by that name" in result.message, result.message
    assert queue.result(build(f"FROM base@{own}\nRUN echo\n")).is_success


@pytest.mark.parametrize("way", ["cancelled", "timed out"])
def test_a_build_that_is_ended_ends_its_step(worker, queue, build, base, await_true, way):
    """Nothing of it goes on."""
    worker.start()
    fields = {"timeout": 2} if way == "timed out" else {}
    job_id = build(f"FROM {base}\nRUN echo began; sleep 300\n", **fields)
    await_true(lambda: "began" in _said(queue, job_id))
    if way == "cancelled":
        queue.producer.cancel(job_id)
    result = queue.result(job_id)
    assert result.outcome is (Outcome.CANCELLED if way == "cancelled" else Outcome.TIMED_OUT)
    await_true(lambda: all(each.result.is_finished for each in queue.records.all()))
    await_true(lambda: not _programs())


def test_a_worker_that_is_killed_loses_no_build(worker, queue, build, base, await_true, tmp_path):
    """The next one builds it to its end; steps that were taken are not taken again."""
    worker.start()
    job_id = build(f"FROM {base}\nRUN echo first > /first\nRUN echo second; sleep 2; echo second > /second\n")
    await_true(lambda: "second" in _said(queue, job_id).partition("step 3")[2].partition("\n")[2])
    worker.kill()
    await_true(lambda: not _programs())
    worker.start()
    result = queue.result(job_id)
    assert (result.outcome, len(result.attempts)) == (Outcome.SUCCEEDED, 1), result.message
    steps = [each for each in queue.records.all() if each.result.name == f"step of {job_id}"]
    assert sum(each.result.is_success for each in steps) == 2


def test_the_whole_log_is_kept_over_a_queue_that_breaks_off(worker, queue, build, base, await_true):
    """A lost connection ends neither the worker nor the build, and costs no line; the log lies in the store."""
    worker.start()
    job_id = build(f"FROM {base}\nRUN for n in 1 2 3 4 5 6 7 8 9; do echo line $n; sleep 0.3; done\n")
    pid = worker.process.pid
    for number in range(1, 9, 2):
        await_true(lambda line=f"line {number}\n": line in _said(queue, job_id))
        queue.producer._redis.client_kill_filter(_type="normal", skipme=True)
    result = queue.result(job_id)
    assert (result.outcome, len(result.attempts)) == (Outcome.SUCCEEDED, 1), result.message
    kept = b"".join(frame.payload for frame in worker.store.read_log(job_id)).decode()
    assert [line for line in kept.splitlines() if line.startswith("line")] == [f"line {n}" for n in range(1, 10)]
    assert result.log.stderr_bytes == len(kept)
    assert worker.process.pid == pid
    assert worker.process.poll() is None


def test_a_build_whose_lease_is_over_ends(worker, queue, build, base, await_true):
    """Another worker may have it by then: nothing of it goes on here."""
    worker.fields |= {"lease_seconds": 2.0, "slots": 1, "cpus": 1.0}
    worker.start()
    job_id = build(f"FROM {base}\nRUN echo began; sleep 300\n")
    await_true(lambda: "began" in _said(queue, job_id))
    redis = queue.producer._redis
    redis.config_set("maxclients", 1)
    redis.client_kill_filter(_type="normal", skipme=True)
    try:
        await_true(lambda: not _programs())
    finally:
        redis.config_set("maxclients", 10000)
    queue.producer.cancel(job_id)
    assert queue.result(job_id).outcome is Outcome.CANCELLED
    await_true(lambda: all(each.result.is_finished for each in queue.records.all()))
    assert queue.result(build(f"FROM {base}\nRUN echo\n")).is_success


def test_a_build_is_tried_again_as_its_policy_says(worker, queue, build, base):
    """As any job."""
    worker.start()
    result = queue.result(build(f"FROM {base}\nRUN exit 3\n", retry={"max": 1, "when": ["failed"]}))
    assert (result.outcome, len(result.attempts)) == (Outcome.FAILED, 2)


def test_what_was_built_is_pushed(worker, queue, build, base, registry, skopeo):
    """To the registry of its name, as the worker may."""
    worker.fields["allow"] = Allowed(builds=(f"{registry.host}/*",))
    worker.start()
    job_id = build(f"FROM {base}\nRUN echo x > /x\n", name=f"{registry.host}/app", push=True, epoch=1_700_000_000)
    result = queue.result(job_id)
    assert result.outcome is Outcome.SUCCEEDED, result.message
    command = ["skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", f"docker://{registry.host}/app"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == result.image.digest


def _signing(key):
    return Signing(SigningKey(key), TrustedKeys((key,)))


def _programs():
    """Processes that build."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [each for each in listed.splitlines() if each.startswith("dayfly: build")]
