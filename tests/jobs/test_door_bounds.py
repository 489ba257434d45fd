"""The door: documents built to hurt."""

import copy
import signal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dayfly.jobs import document
from dayfly.jobs.door import read_job
from dayfly.jobs.errors import SpecError
from dayfly.jobs.model import JobModel
from dayfly.jobs.spec import (
    Keep,
    Retry,
)
from dayfly.jobs.state import Outcome

_DIGEST = "sha256:" + "0123456789abcdef" * 4


def _refusal(document):
    with pytest.raises(SpecError) as caught:
        read_job(document)
    return str(caught.value)


def _nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.attack("D10")
@pytest.mark.parametrize("depth", [40, 900, 100_000])
def test_a_deep_document_is_refused_before_it_is_followed(depth):
    """10^5 levels end neither in a RecursionError nor in a crash."""
    assert "nested more than 32 levels deep" in _refusal({"command": _nested(depth)})


@pytest.mark.control("D10")
def test_without_the_bound_a_deep_document_ends_in_a_recursion(monkeypatch):
    """The attack is real (the negative control)."""
    monkeypatch.setattr(document, "MAX_DEPTH", 1 << 30)
    with pytest.raises(RecursionError):
        read_job({"command": _nested(2_000)})


def test_a_document_that_contains_itself_is_refused():
    """However often: the number of values looked at is bounded, not only their depth."""
    loop = []
    loop.extend([loop] * 1000)
    assert "is nested" in _refusal({"command": loop})
    wide = "x"
    for _ in range(30):
        wide = [wide, wide]
    assert "is larger than 4M" in _refusal({"command": wide})


def test_a_document_that_grows_when_it_is_written_is_refused():
    """Control characters take six bytes each in the queue, which keeps no more than 4M: said at the door, not there."""
    grown = {"command": "x", "annotations": {"a": "\x01" * 1_000_000}}
    assert "document: is larger than 4M: written out in full it has" in _refusal(grown)


@pytest.mark.attack("D10")
def test_a_million_empty_values_are_refused():
    """They weigh nothing as text and a lot in memory."""
    assert "is larger than 4M" in _refusal({"command": [[]] * 1_000_000})


def test_the_callers_document_is_left_as_it_is():
    """And a later change of it does not reach the spec."""
    document = {"env": {"A": "1"}, "command": ["a"], "mounts": ["/a:/b"], "retry": 1}
    before = copy.deepcopy(document)
    spec = read_job(document)
    assert document == before
    document["env"]["A"] = "2"
    assert spec.env["A"] == "1"


def test_words_of_enums_come_in_as_their_words():
    """Python programs hand in Keep.FAILED or signal.SIGINT."""
    spec = read_job({"keep": Keep.FAILED, "stop_signal": signal.SIGINT, "retry": {"max": 1, "when": [Outcome.LOST]}})
    assert (spec.keep, spec.stop_signal, spec.retry) == (Keep.FAILED, 2, Retry(1))
    assert type(spec.stop_signal) is int


_ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()), max_size=20)
    | st.sampled_from(["../x", "a=b", "1G", "5m", "host", "none", "/proc/self/fd/3", "\0", "each", "bridge", _DIGEST])
)
_INNER = (
    "memory pids cpus io device paths when max ids source target path bundle host text base64 tty batch reports "
    "exit_codes expire_in zzz"
)
_NAMES = sorted({*JobModel.model_fields, *_INNER.split(), "", "\ud800"})
_VALUES = st.recursive(
    _ATOMS,
    lambda each: (
        st.lists(each, max_size=3)
        | st.dictionaries(st.sampled_from(_NAMES), each, max_size=4)
        | st.dictionaries(st.text(max_size=5), each, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(_NAMES), _VALUES, max_size=6))
@example({"limits": {"io": {"device": "\ud800", "zzz": 1}}})
@example({"mounts": {"source": {}, "\ud800": []}})
@example({"env": {"[key]": 3}})
def test_any_document_is_a_job_or_a_spec_error(document):
    """Never a traceback of another kind, and every complaint can be printed anywhere."""
    try:
        spec = read_job(document)
    except SpecError as error:
        messages = [str(each) for each in error.errors]
    else:
        messages = ["fine"]
        assert read_job(spec.to_document()) == spec
    assert messages
    assert all(message.isprintable() and message.encode() for message in messages)
