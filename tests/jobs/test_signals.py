"""Signals by name and number."""

import pytest

from dayfly.jobs.signals import check_signal, parse_signal, signal_name


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("TERM", 15), ("term", 15), ("sigint", 2), ("15", 15), ("KILL", 9), ("RTMIN+3", 37),
     ("SIGRTMAX-1", 63)],
)  # fmt: skip
def test_a_signal_is_known_by_its_names(text, number):
    """With and without SIG, in either case, real-time ones by offset as Docker and systemd write them."""
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text", ["", "SIG", "0", "65", "-1", "TERM+1", "RTMIN+99", "RTMIN-90", "NOPE", "15 ", "\u0661"]
)
def test_an_unknown_signal_is_refused(text):
    """Zero and numbers past 64 would do nothing or fail when it matters."""
    with pytest.raises(ValueError, match="signal"):
        parse_signal(text)


@pytest.mark.parametrize("number", range(1, 65))
def test_every_signal_survives_naming(number):
    """signal_name() writes what parse_signal() reads."""
    assert parse_signal(signal_name(number)) == number == check_signal(number)
