"""Signed jobs: what producers write, what retry signs anew, what is taken from plain RQ producers."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

import dayfly
from dayfly.jobs.demand import Capacity
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import DayflyError, QueueError
from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.result import Result
from dayfly.jobs.signatures import SignatureError, Signing, SigningKey, TrustedKeys
from dayfly.jobs.state import Outcome
from dayfly.queue.consumer import Consumer
from dayfly.queue.foreign import Intake
from dayfly.queue.key_files import read_key, read_keys, write_key
from dayfly.queue.payload import Serializer
from dayfly.queue.producer import Producer
from dayfly.queue.records import Records

DOCUMENT = {"command": ["make"]}
KEY = generate(KeyKind.HMAC)


@pytest.fixture
def trusted() -> TrustedKeys:
    return TrustedKeys([KEY])


@pytest.fixture
def signer(redis: Redis, trusted: TrustedKeys) -> Producer:
    return Producer(redis, lambda: Signing(SigningKey(KEY), trusted))


def test_every_way_to_submit_signs(signer: Producer, consumer: Consumer, offer: Capacity, trusted: TrustedKeys) -> None:
    """One job, many, one with a unique key, one after another: each claim has what verifies."""
    one = read_job({**DOCUMENT, "annotations": {"größe": "1.50"}, "limits": {"cpus": 0.1}})
    signer.submit(one)
    signer.submit_many(
        [one, read_job({**DOCUMENT, "unique": "k"}), read_job({**DOCUMENT, "stdin": {"base64": "/w=="}})]
    )
    for _ in range(4):
        claim = consumer.claim(offer)
        assert claim is not None
        trusted.verify_job(claim.signature, claim.job_id, claim.queue, claim.document)


def test_an_attempt_after_the_first_is_signed_as_the_first(
    signer: Producer, consumer: Consumer, offer: Capacity, trusted: TrustedKeys
) -> None:
    """Requeue changes nothing that is signed."""
    signer.submit(read_job(DOCUMENT))
    claim = consumer.claim(offer)
    assert claim is not None
    assert consumer.requeue(claim, count_attempt=True)
    (again,) = (consumer.claim(offer),)
    assert again is not None
    assert again.attempt == 2
    trusted.verify_job(again.signature, again.job_id, again.queue, again.document)


def test_retry_signs_what_was_signed(
    signer: Producer, records: Records, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """Under the new id."""
    signer.submit(read_job(DOCUMENT))
    claim = consumer.claim(offer)
    assert claim is not None
    consumer.finish(claim, ended(claim, Outcome.FAILED))
    again = records.get(signer.retry(claim.job_id))
    TrustedKeys([KEY]).verify_job(again.signature, again.id, again.queue, again.document)
    with pytest.raises(SignatureError):
        TrustedKeys([KEY]).verify_job(claim.signature, again.id, again.queue, again.document)


def test_retry_launders_nothing(
    redis: Redis, signer: Producer, consumer: Consumer, offer: Capacity, ended: Callable[..., Result]
) -> None:
    """A document that was altered in Redis since is not signed anew for whoever altered it."""
    signer.submit(read_job(DOCUMENT))
    claim = consumer.claim(offer)
    assert claim is not None
    consumer.finish(claim, ended(claim, Outcome.FAILED))
    redis.hset(f"rq:job:{claim.job_id}", "data", Serializer.dumps(["dayfly.execute", None, [{"command": ["rm"]}], {}]))
    with pytest.raises(QueueError, match="altered"):
        signer.retry(claim.job_id)


def test_a_plain_rq_producer_can_sign(
    redis: Redis, tmp_path: Path, consumer: Consumer, offer: Capacity, trusted: TrustedKeys
) -> None:
    """By the documented call; its claim verifies as any other."""
    write_key(tmp_path / "key", KEY)
    queue = Queue("default", connection=redis, serializer=JSONSerializer)
    job = queue.enqueue("dayfly.execute", DOCUMENT, **dayfly.sign(DOCUMENT, key=tmp_path / "key"))
    assert Intake(redis, trusted).take("default") == 1
    claim = consumer.claim(offer)
    assert claim is not None
    assert claim.job_id == job.id
    trusted.verify_job(claim.signature, claim.job_id, claim.queue, claim.document)


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        (None, "not signed"),
        ({"dayfly_signature": "x"}, "a form"),
        ({"dayfly_signature": ["x"]}, "not signed"),
        ({"dayfly_signature": f"1:{KEY.id}:9999999999:AAAA"}, "altered"),
        ({"dayfly_signature": "1:0000000000000000:9999999999:AAAA"}, "not trusted"),
        ({"dayfly_signature": "x" * 70_000}, "not signed"),
    ],
)
def test_an_unsigned_job_of_a_plain_producer_is_parked(
    redis: Redis, records: Records, trusted: TrustedKeys, meta: dict[str, object] | None, reason: str
) -> None:
    """With the reason, in RQ's registry of failed jobs."""
    queue = Queue("default", connection=redis, serializer=JSONSerializer)
    job = queue.enqueue("dayfly.execute", DOCUMENT, meta=meta)
    Intake(redis, trusted).take("default")
    result = records.get(job.id).result
    assert result.outcome is Outcome.REJECTED
    assert reason in str(result.message)
    assert queue.failed_job_registry.get_job_ids() == [job.id]


def test_a_signature_for_another_queue_is_parked(
    redis: Redis, tmp_path: Path, records: Records, trusted: TrustedKeys
) -> None:
    """Workers of another queue may have more rights."""
    write_key(tmp_path / "key", KEY)
    queue = Queue("default", connection=redis, serializer=JSONSerializer)
    signed = dayfly.sign(DOCUMENT, queue="ci", key=tmp_path / "key")
    job = queue.enqueue("dayfly.execute", DOCUMENT, **signed)
    Intake(redis, trusted).take("default")
    assert "altered" in str(records.get(job.id).result.message)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_secret_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    """And the message says how to mend it; a public half may be read."""
    secret = tmp_path / "secret"
    write_key(secret, KEY)
    assert read_key(secret) == KEY
    secret.chmod(mode)
    with pytest.raises(DayflyError, match="chmod 0600"):
        read_key(secret)


def test_a_public_key_that_others_may_change_is_not_used(tmp_path: Path) -> None:
    """Whoever replaces it decides what runs."""
    file = tmp_path / "public"
    write_key(file, generate(KeyKind.ED25519).public())
    assert file.stat().st_mode & 0o777 == 0o644
    file.chmod(0o666)
    with pytest.raises(DayflyError, match="chmod 0644"):
        read_key(file)


def test_a_directory_of_keys_is_all_of_them(tmp_path: Path) -> None:
    """Rotation: a new key is a new file; a name with a dot in front is somebody's draft."""
    keys = [generate(KeyKind.HMAC) for _ in range(2)]
    for number, key in enumerate(keys):
        write_key(tmp_path / f"{number}.key", key)
    (tmp_path / ".draft").write_text("x")
    assert read_keys([tmp_path]) == tuple(keys)


def test_a_key_file_is_never_replaced(tmp_path: Path) -> None:
    """What was signed or sealed with the old one needs it."""
    write_key(tmp_path / "key", KEY)
    with pytest.raises(DayflyError, match="there is a file already"):
        write_key(tmp_path / "key", generate(KeyKind.HMAC))


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * 10_000, b""])
def test_a_file_that_holds_no_key_is_named(tmp_path: Path, content: bytes) -> None:
    """By its path, not by its content."""
    file = tmp_path / "key"
    file.write_bytes(content)
    file.chmod(0o600)
    with pytest.raises(DayflyError, match=str(file)):
        read_key(file)
    with pytest.raises(DayflyError, match="not a file"):
        read_key(Path("/dev/null"))


def test_json_of_the_queue_is_what_is_signed(signer: Producer, redis: Redis, trusted: TrustedKeys) -> None:
    """A reader in another language finds document and signature where the documentation says."""
    job_id = signer.submit(read_job({"command": ["ä"], "limits": {"cpus": 1.25}}))
    data, signature = redis.hmget(f"rq:job:{job_id}", "data", "dayfly_signature")
    document = json.loads(zlib.decompress(data))[2][0]
    trusted.verify_job(signature.decode(), job_id, "default", document)
