"""A worker with trusted keys runs signed jobs, each attempt of them, and parks every other one with the reason."""

import pytest
from rq import Queue as RqQueue
from rq.serializers import JSONSerializer

import dayfly
from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.signatures import Signing, SigningKey, TrustedKeys
from dayfly.jobs.state import Outcome
from dayfly.queue.connection import connect
from dayfly.queue.key_files import write_key
from dayfly.queue.producer import Producer

pytestmark = pytest.mark.kernel


@pytest.fixture
def redis(valkey):
    client = connect(valkey)
    yield client
    client.close()


def _trust(worker, tmp_path, *keys):
    """Have the worker believe the keys of a directory."""
    directory = tmp_path / "trusted"
    for number, key in enumerate(keys):
        write_key(directory / f"{number}.key", key)
    worker.fields["trusted_keys"] = (directory,)


def test_signed_jobs_run_with_every_attempt_and_others_are_parked(worker, queue, redis, tmp_path):
    """Two trusted keys at once, as while a key is changed; plain RQ producers sign by dayfly.sign()."""
    old, new = generate(KeyKind.HMAC), generate(KeyKind.ED25519)
    _trust(worker, tmp_path, old, new.public())
    unsigned = queue.submit(command=["true"])
    stranger = Producer(redis, lambda: _signing(generate(KeyKind.HMAC)))
    queue.producer = stranger
    unknown = queue.submit(command=["true"])
    queue.producer = Producer(redis, lambda: _signing(old))
    by_old = queue.submit(script="exit 75", retry={"max": 1, "exit_codes": [75]})
    queue.producer = Producer(redis, lambda: _signing(new))
    by_new = queue.submit(command=["true"])
    write_key(tmp_path / "client.key", new)
    document = {"image": "host", "command": ["true"]}
    rq = RqQueue("default", connection=redis, serializer=JSONSerializer)
    plain = rq.enqueue("dayfly.execute", document, **dayfly.sign(document, key=tmp_path / "client.key")).id
    parked = rq.enqueue("dayfly.execute", document).id
    worker.start()
    assert queue.result(by_new).outcome is Outcome.SUCCEEDED
    assert queue.result(plain).outcome is Outcome.SUCCEEDED
    tried_twice = queue.result(by_old)
    assert (tried_twice.exit_code, len(tried_twice.attempts)) == (75, 2)
    again = queue.producer.retry(by_new)
    assert queue.result(again).outcome is Outcome.SUCCEEDED
    for job_id, reason in ((unsigned, "not signed"), (unknown, "not trusted"), (parked, "not signed")):
        result = queue.result(job_id)
        assert result.outcome is Outcome.REJECTED
        assert reason in result.message


def _signing(key):
    return Signing(SigningKey(key), TrustedKeys([key]))


def test_a_worker_without_a_key_that_it_may_use_does_not_start(worker, tmp_path):
    """It would either run everything or nothing: it says which file is wrong and ends."""
    _trust(worker, tmp_path, generate(KeyKind.HMAC))
    (tmp_path / "trusted/0.key").chmod(0o644)
    worker.start()
    assert worker.wait() != 0
    assert "chmod 0600" in worker.log_path.read_text()


def test_a_job_moved_to_a_worker_without_its_labels_is_refused(worker, queue, redis):
    """The list that it waits in says which worker may take it, and anybody who writes to Redis can move it."""
    job_id = queue.submit(command=["true"], labels={"zone": "prod"})
    (name,) = redis.keys("rq:queue:default@*")
    moved = name.decode().removeprefix("rq:queue:").removesuffix(":lzone=prod")
    redis.rename(name, f"rq:queue:{moved}")
    redis.hset(f"rq:job:{job_id}", "origin", moved)
    redis.zadd("dayfly:index:default", {moved: 1})
    worker.start()
    result = queue.result(job_id)
    assert result.outcome is Outcome.REJECTED
    assert "labels.zone" in result.message
