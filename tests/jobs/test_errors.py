"""The error tree: messages, and several errors as one."""

import errno

import pytest

from dayfly.jobs import errors


def test_a_message_says_where_why_and_the_remedy():
    """As STYLE asks: what, on what, why, what to do."""
    error = errors.HostError("mount the overlay on", "/x", errno.EPERM, "run it as root")
    assert str(error) == "cannot mount the overlay on /x: Operation not permitted; run it as root"
    assert (error.step, error.path, error.errno, error.remedy) == ("mount the overlay on", "/x", 1, "run it as root")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.SpecError("limits.pids", "must be 1 or more, got 0"), "limits.pids: must be 1 or more, got 0"),
        (errors.SpecError("", "is empty", source="a.yaml"), "document: is empty (a.yaml)"),
        (errors.SpecError("a", "b", source="a.yaml", line=3), "a: b (a.yaml, line 3)"),
        (errors.ConfigError("/etc/c.toml", 4, "unknown key"), "/etc/c.toml, line 4: unknown key"),
        (errors.AmbiguousId("01", ["01A", "01B"]), "'01' is the start of 2 job ids (01A, 01B); give more of it"),
    ],
)
def test_an_error_reads_as_one_sentence(error, text):
    """Path or file first, then the reason."""
    assert str(error) == text
    assert error.exit_code == 125


def test_several_wrong_fields_are_one_error_with_a_line_each():
    """`errors` holds them apart, the message has them all."""
    parts = [errors.SpecError("a", "x"), errors.NotBuilt("b", "y")]
    whole = errors.SpecError.together(parts)
    assert str(whole) == "a: x\nb: y"
    assert whole.errors == tuple(parts)
    assert not isinstance(whole, errors.NotBuilt)


def test_only_fields_of_later_versions_are_together_not_built():
    """So that a client can tell a wish from a mistake."""
    whole = errors.SpecError.together([errors.NotBuilt("a", "x"), errors.NotBuilt("b", "y")])
    assert isinstance(whole, errors.NotBuilt)


def test_every_error_is_one_of_ours():
    """One except clause catches everything Dayfly raises."""
    raised = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert len(raised) >= 15
    assert all(issubclass(each, errors.DayflyError) for each in raised)
