"""Signatures hold for exactly what was signed, by a trusted key, until their end."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayfly.jobs.key_text import Key, KeyKind, generate, parse_key
from dayfly.jobs.signatures import SignatureError, SigningKey, TrustedKeys

ID, QUEUE = "01JXABCDEFGHJKMNPQRSTVWXYZ", "ci"
DOCUMENT: dict[str, Any] = {"version": 1, "image": "debian:12", "command": ["make"], "limits": {"cpus": 1.5}}
KINDS = (KeyKind.HMAC, KeyKind.ED25519)


def _verifier(key: Key) -> Key:
    return key if key.kind is KeyKind.HMAC else key.public()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_verifies(kind: KeyKind) -> None:
    """Also after the document went through JSON, its keys in another order."""
    key = generate(kind)
    signature = SigningKey(key).sign_job(ID, QUEUE, DOCUMENT)
    again = dict(reversed(list(json.loads(json.dumps(DOCUMENT)).items())))
    TrustedKeys([generate(KeyKind.HMAC), _verifier(key)]).verify_job(signature, ID, QUEUE, again)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("job_id", "queue", "document"),
    [
        (ID[:-1] + "A", QUEUE, DOCUMENT),
        (ID, "deploy", DOCUMENT),
        (ID, QUEUE, {**DOCUMENT, "image": "debian:13"}),
        (ID, QUEUE, {**DOCUMENT, "command": ["make", "-k"]}),
        (ID, QUEUE, {**DOCUMENT, "user": "0"}),
        (ID, QUEUE, {**DOCUMENT, "env": {"LD_PRELOAD": "/x"}}),
        (ID, QUEUE, {**DOCUMENT, "mounts": [{"source": "/", "target": "/host"}]}),
        (ID, QUEUE, {**DOCUMENT, "limits": {"cpus": 15}}),
        (ID, QUEUE, {key: value for key, value in DOCUMENT.items() if key != "limits"}),
    ],
)
def test_nothing_else_verifies(kind: KeyKind, job_id: str, queue: str, document: dict[str, Any]) -> None:
    """Another id, another queue, any other field: altered."""
    key = generate(kind)
    signature = SigningKey(key).sign_job(ID, QUEUE, DOCUMENT)
    with pytest.raises(SignatureError, match="altered"):
        TrustedKeys([_verifier(key)]).verify_job(signature, job_id, queue, document)


@pytest.mark.parametrize("kind", KINDS)
def test_its_end_is_signed_too(kind: KeyKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old signature is refused, and cannot be made to last longer."""
    key = generate(kind)
    signature = SigningKey(key, valid_seconds=60).sign_job(ID, QUEUE, DOCUMENT)
    trusted = TrustedKeys([_verifier(key)])
    version, key_id, end, proof = signature.split(":")
    with pytest.raises(SignatureError, match="altered"):
        trusted.verify_job(":".join((version, key_id, str(int(end) + 1), proof)), ID, QUEUE, DOCUMENT)
    later = time.time() + 61
    monkeypatch.setattr(time, "time", lambda: later)
    with pytest.raises(SignatureError, match="has ended"):
        trusted.verify_job(signature, ID, QUEUE, DOCUMENT)
    trusted.verify_job(signature, ID, QUEUE, DOCUMENT, may_be_old=True)


def test_a_delayed_job_is_signed_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signature's time begins when the job may run."""
    key = generate(KeyKind.HMAC)
    signature = SigningKey(key, valid_seconds=60).sign_job(ID, QUEUE, DOCUMENT, wait_seconds=3600)
    later = time.time() + 3650
    monkeypatch.setattr(time, "time", lambda: later)
    TrustedKeys([key]).verify_job(signature, ID, QUEUE, DOCUMENT)


def test_a_key_of_somebody_else_is_not_believed() -> None:
    """Neither an unknown key, nor one under a trusted key's id."""
    ours, theirs = generate(KeyKind.HMAC), generate(KeyKind.HMAC)
    trusted = TrustedKeys([ours])
    signature = SigningKey(theirs).sign_job(ID, QUEUE, DOCUMENT)
    with pytest.raises(SignatureError, match="not trusted"):
        trusted.verify_job(signature, ID, QUEUE, DOCUMENT)
    with pytest.raises(SignatureError, match="altered"):
        trusted.verify_job(signature.replace(theirs.id, ours.id), ID, QUEUE, DOCUMENT)


def test_a_public_key_is_no_hmac_key() -> None:
    """Who knows a trusted public half cannot use it as a shared secret."""
    pair = generate(KeyKind.ED25519)
    forged = Key(KeyKind.HMAC, pair.public().raw)
    signature = SigningKey(forged).sign_job(ID, QUEUE, DOCUMENT)
    with pytest.raises(SignatureError):
        TrustedKeys([pair.public()]).verify_job(signature.replace(forged.id, pair.id), ID, QUEUE, DOCUMENT)


@pytest.mark.parametrize(
    "text", [None, "", "x", "1:a:b", "1:k:-1:AA==", "2:k:9:AA==", "1:k:9:%%", "1:k:٣:AA==", ":::", "1:k:9:" + "A" * 400]
)
def test_what_is_no_signature_is_refused(text: str | None) -> None:
    """Whatever stands in its place."""
    with pytest.raises(SignatureError):
        TrustedKeys([generate(KeyKind.HMAC)]).verify_job(text, ID, QUEUE, DOCUMENT)


@given(st.text(max_size=80))
def test_no_text_is_a_traceback(text: str) -> None:
    """Anybody may have written it."""
    key = Key(KeyKind.HMAC, bytes(32))
    for signature in (text, f"1:{key.id}:{text}", f"1:{key.id}:9999999999:{text}"):
        with pytest.raises(SignatureError):
            TrustedKeys([key]).verify_job(signature, ID, QUEUE, DOCUMENT)


def test_a_document_of_surrogates_and_depth_is_refused_or_held_apart() -> None:
    """What has no canonical form is no job, and never a traceback."""
    key = generate(KeyKind.HMAC)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SignatureError, match="canonical"):
        TrustedKeys([key]).verify_job(f"1:{key.id}:9999999999:AA==", ID, QUEUE, {"env": deep})
    signature = SigningKey(key).sign_job(ID, QUEUE, {"name": "\ud800"})
    with pytest.raises(SignatureError, match="altered"):
        TrustedKeys([key]).verify_job(signature, ID, QUEUE, {"name": "?"})


def test_only_keys_that_can_sign_sign() -> None:
    """A public half, or a key of secrets, is refused where it is named."""
    with pytest.raises(ValueError, match="cannot sign"):
        SigningKey(generate(KeyKind.ED25519).public())
    with pytest.raises(ValueError, match="cannot verify"):
        TrustedKeys([generate(KeyKind.X25519)])


@pytest.mark.parametrize("kind", [KeyKind.HMAC, KeyKind.ED25519, KeyKind.X25519])
def test_a_key_survives_its_file_and_is_never_shown(kind: KeyKind) -> None:
    """Both halves have one id, and no repr has the key."""
    key = generate(kind)
    assert parse_key(f"# comment\n\n{key.line()}\n") == key
    if kind is not KeyKind.HMAC:
        assert parse_key(key.public().line()).id == key.id
    assert key.raw.hex() not in repr(key)
    assert repr(key.raw) not in repr(key)


@pytest.mark.parametrize(
    "text", ["", "x", "hmac-sha256 AAAA", "rsa " + "A" * 44, "hmac-sha256 %%%", "a b quack", "a b\nc quack"]
)
def test_what_is_no_key_is_refused_without_a_word_of_it(text: str) -> None:
    """A message may be logged, and the file may hold a key of another kind."""
    with pytest.raises(ValueError, match=r"must hold|not base64") as refused:
        parse_key(text)
    assert not text.split() or text.split()[-1] not in str(refused.value)
