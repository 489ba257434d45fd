"""Secrets in a document, in all their forms, and sealed as Redis has them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.jobs.key_text import KeyKind, generate
from dayfly.jobs.sealed import SealedSecret, SecretError, check_value, seal, unseal
from dayfly.jobs.secret_use import SecretUse

KEY = generate(KeyKind.X25519)


@pytest.mark.parametrize(
    ("secrets", "uses"),
    [
        ("TOKEN", (SecretUse("TOKEN", env="TOKEN"),)),
        (["A", "B=C"], (SecretUse("A", env="A"), SecretUse("B", env="C"))),
        (["K=/opt/app/id"], (SecretUse("K", file="/opt/app/id"),)),
        ({"A": "B"}, (SecretUse("A", env="B"),)),
        ({"K": "/opt/app/netrc"}, (SecretUse("K", file="/opt/app/netrc"),)),
        ({"K": {}}, (SecretUse("K"),)),
        ({"K": {"file": "/run/secrets/K"}}, (SecretUse("K"),)),
        ({"K": {"mode": "0440"}}, (SecretUse("K", mode=0o440),)),
        ({"K": {"file": "/a", "mode": "444"}}, (SecretUse("K", file="/a", mode=0o444),)),
    ],
)
def test_every_form_is_read_and_written_out(secrets: Any, uses: tuple[SecretUse, ...]) -> None:
    """As a CI user would write it; the canonical document reads the same."""
    spec = read_job({"script": "true", "secrets": secrets})
    assert spec.secrets == uses
    assert read_job(spec.to_document()) == spec


@pytest.mark.parametrize(
    ("secrets", "complaint"),
    [
        ({"a/b": "X"}, "secret's name"),
        ({"..": "X"}, "secret's name"),
        ({"A": "B=C"}, "secrets.A.env: the name of a variable"),
        ({"A": {"env": "B", "file": "/x"}}, "secrets.A: must be a variable or a file"),
        ({"A": {"env": "B", "mode": "0400"}}, "secrets.A: must be a variable or a file"),
        ({"A": {"mode": 400}}, "secrets.A.mode: must be octal digits in quotes"),
        ({"A": {"mode": "0999"}}, "secrets.A.mode"),
        ({"A": {"mode": "4755"}}, "secrets.A.mode"),
        ({"A": {"file": "/proc/x"}}, "secrets.A.file"),
        ({"A": {"file": "a/../b"}}, "secrets.A.file"),
        ({"A": {"value": "x"}}, "secrets.A.value: unknown field"),
        ({"A": "X", "B": "X"}, "two secrets as"),
        ({"A": "/x", "B": "/x"}, "two secrets as"),
        (["A", "A"], "a second time"),
        ([""], "item 1"),
        ([1], "item 1"),
        ({f"A{n}": {} for n in range(65)}, "64 or fewer"),
        ({"A": "CI_TOKEN"}, "secrets.A: the variable CI_TOKEN is in env, too"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(secrets: Any, complaint: str) -> None:
    """Before anything is submitted."""
    with pytest.raises(SpecError) as refused:
        read_job({"script": "true", "env": {"CI_TOKEN": "1"}, "secrets": secrets})
    assert complaint in str(refused.value)


@given(st.binary(min_size=4, max_size=200).filter(lambda value: len(b"".join(value.split())) >= 4))
def test_a_sealed_secret_survives_redis(value: bytes) -> None:
    """For each of several keys; what Redis has of it is none of the value."""
    other = generate(KeyKind.X25519)
    sealed = seal("token", value, ["b", "a", "a"], [KEY, other.public()], 1.5)
    again = SealedSecret.from_json("token", sealed.to_json())
    assert again == sealed
    assert again.queues == ("a", "b")
    assert unseal(again, [other]) == unseal(again, [generate(KeyKind.X25519), KEY]) == value


@pytest.mark.parametrize(
    "text",
    [
        b'{"queues": ["q"], "sealed": {}, "set_at": 1%s}' % (b"0" * 400),
        b'{"queues": ["q"], "sealed": {"k": 1}, "set_at": 1}',
        b"[" * 100_000,
        b"[]",
    ],
)
def test_what_nobody_sealed_is_refused_in_words(text: bytes) -> None:
    """Anybody may have written it; a worker says so of the job that wants it."""
    with pytest.raises(SecretError, match="cannot be read"):
        SealedSecret.from_json("A", text)


def test_a_key_it_was_not_sealed_for_says_so() -> None:
    """With the ids that could open it."""
    sealed = seal("token", b"value", ["a"], [KEY], 1.0)
    with pytest.raises(SecretError, match=KEY.id):
        unseal(sealed, [generate(KeyKind.X25519)])


@pytest.mark.parametrize("value", [b"", b"abc", b" a\n b\n c ", b"x" * 32769])
def test_a_value_that_could_not_be_masked_or_handed_over_is_refused(value: bytes) -> None:
    """Under four bytes beside spaces, or too large."""
    with pytest.raises(SecretError):
        check_value(value)


def test_only_keys_of_secrets_seal() -> None:
    """A signing key named by mistake is refused, as is no key and no queue."""
    for queues, keys in ((["a"], [generate(KeyKind.ED25519)]), (["a"], []), ([], [KEY])):
        with pytest.raises(SecretError):
            seal("token", b"value", queues, keys, 1.0)
