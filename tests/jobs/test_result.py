"""The Result: exact round trip, tolerance of newer keys, check()."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayfly.jobs.errors import JobFailed
from dayfly.jobs.result import (
    ArtifactEntry,
    Attempt,
    DiskFacts,
    EffectiveLimits,
    ImageUsed,
    LogSummary,
    OomFacts,
    OomVictim,
    PathSize,
    Pressure,
    Result,
    Sample,
    Timings,
    Usage,
)
from dayfly.jobs.state import Outcome, State

_TEXT = st.text(max_size=10)
_COUNT = st.integers(0, 1 << 62)
_SECONDS = st.floats(0, 1e10, allow_nan=False)
_JSON = st.recursive(st.none() | st.booleans() | _COUNT | _TEXT, lambda each: st.lists(each, max_size=2), max_leaves=4)


def _some(kind, **fields):
    return st.builds(kind, **{name: st.none() | strategy for name, strategy in fields.items()})


_RESULTS = st.builds(
    Result,
    id=_TEXT,
    name=st.none() | _TEXT,
    state=st.sampled_from(State),
    outcome=st.none() | st.sampled_from(Outcome),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | st.integers(1, 64),
    message=st.none() | _TEXT,
    image=st.none() | st.builds(ImageUsed, ref=_TEXT, digest=st.none() | _TEXT),
    limits=st.none() | _some(EffectiveLimits, cpus=_SECONDS, memory_bytes=_COUNT, timeout_seconds=_SECONDS),
    features=st.dictionaries(_TEXT, _JSON, max_size=3),
    timings=_some(Timings, **{each.name: _SECONDS for each in dataclasses.fields(Timings)}),
    usage=_some(Usage, cpu_user_seconds=_SECONDS, memory_peak_bytes=_COUNT, pids_peak=_COUNT),
    samples=st.lists(st.builds(Sample, _SECONDS, _SECONDS, _COUNT), max_size=3).map(tuple),
    oom=st.none() | st.builds(OomFacts, _COUNT, st.lists(st.builds(OomVictim, _TEXT, _COUNT), max_size=2).map(tuple)),
    disk=st.none()
    | st.builds(
        DiskFacts,
        st.booleans(),
        st.none() | _COUNT,
        st.none() | _COUNT,
        st.lists(st.builds(PathSize, _TEXT, _COUNT), max_size=2).map(tuple),
    ),
    pressure=st.none() | _some(Pressure, cpu_seconds=_SECONDS, io_seconds=_SECONDS),
    warnings=st.lists(_TEXT, max_size=2).map(tuple),
    artifacts=st.lists(st.builds(ArtifactEntry, _TEXT, _COUNT, _TEXT, _COUNT, _SECONDS), max_size=2).map(tuple),
    attempts=st.lists(
        st.builds(Attempt, _COUNT, outcome=st.none() | st.sampled_from(Outcome), why=st.none() | _TEXT), max_size=2
    ).map(tuple),
    log=st.builds(LogSummary, st.none() | _TEXT, _COUNT, _COUNT, _COUNT),
)


@given(_RESULTS)
def test_a_result_survives_json_exactly(result):
    """from_json(to_json()) through real JSON text is the same value."""
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def _with_newer_keys(value):
    if isinstance(value, dict):
        return {**{key: _with_newer_keys(item) for key, item in value.items()}, "newer": {"x": 1}}
    return [_with_newer_keys(item) for item in value] if isinstance(value, list) else value


@given(_RESULTS.filter(lambda each: not each.features))
def test_keys_of_a_newer_dayfly_are_passed_over(result):
    """An old client can read a new worker's result, at every level."""
    document = _with_newer_keys(result.to_json())
    del document["features"]["newer"]
    assert Result.from_json(document) == result


def test_keys_of_an_older_dayfly_may_be_missing():
    """A result that knows only its id takes defaults for the rest."""
    assert Result.from_json({"id": "X"}) == Result("X")


def test_facts_are_read_in_the_keepers_short_form_too():
    """exit.json has pairs for paths and triples for samples."""
    result = Result.from_json(
        {"id": "X", "disk": {"reached": True, "biggest": [["/a", 5]]}, "samples": [[1.0, 0.5, 4096]]}
    )
    assert result.disk is not None
    assert result.disk.biggest == (PathSize("/a", 5),)
    assert result.samples == (Sample(1.0, 0.5, 4096),)


def test_json_has_the_durations_for_readers():
    """So that jq needs no arithmetic; never negative where two hosts' clocks differ."""
    timings = Timings(queued_at=10, claimed_at=12.5, started_at=13, finished_at=12)
    assert Result("X", timings=timings).to_json()["timings"] == {
        **dataclasses.asdict(timings),
        "queue_seconds": 2.5,
        "image_seconds": None,
        "start_seconds": 0.5,
        "run_seconds": 0.0,
        "collect_seconds": None,
        "total_seconds": 2.0,
    }


def test_check_returns_a_success_and_raises_the_rest():
    """As subprocess does: JobFailed carries the Result."""
    success = Result("X", state=State.FINISHED, outcome=Outcome.SUCCEEDED, exit_code=0)
    assert success.check() is success
    failure = Result("X", state=State.FINISHED, outcome=Outcome.FAILED, exit_code=3)
    with pytest.raises(JobFailed, match="job X failed with exit code 3") as caught:
        failure.check()
    assert caught.value.result is failure


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"outcome": Outcome.SIGNALED, "signal": 11}, "was ended by SIGSEGV"),
        ({"outcome": Outcome.TIMED_OUT}, "ran longer than it may"),
        ({"outcome": Outcome.REJECTED, "message": "no image 'x'"}, "was rejected: no image 'x'"),
        ({"state": State.RUNNING}, "is running"),
    ],
)
def test_a_result_describes_itself(fields, words):
    """In words that follow the job's name."""
    assert Result("X", **fields).describe() == words


def test_a_result_cannot_be_changed():
    """Frozen, its maps too."""
    result = Result("X", features={"a": 1})
    with pytest.raises(TypeError):
        result.features["a"] = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.id = "Y"
