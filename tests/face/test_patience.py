"""Waiting through a Redis that is away for a while."""

from __future__ import annotations

import pytest

from dayfly.cli.patience import patiently
from dayfly.jobs.errors import QueueNotReady, QueueRefused, QueueUnreachable


@pytest.mark.parametrize("kind", [QueueUnreachable, QueueNotReady])
def test_a_redis_that_comes_back_is_waited_for(kind: type[Exception], capfd: pytest.CaptureFixture[str]) -> None:
    """A restart, in which Redis is first gone and then loading, does not end the wait; one line says so."""
    answers = [kind("Redis is away"), kind("still"), "answer"]

    def step() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    assert patiently(step) == "answer"
    assert capfd.readouterr().err == "dayfly: Redis is away; waiting for it to come back\n"


def test_a_refusal_that_stays_is_not_waited_for() -> None:
    """A wrong password is said at once."""

    def step() -> None:
        raise QueueRefused("no")

    with pytest.raises(QueueRefused):
        patiently(step)
