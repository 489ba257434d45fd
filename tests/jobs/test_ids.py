"""Job ids."""

import time

import pytest

from dayfly.jobs.ids import is_id, new_id


def test_ids_are_unique_and_whole():
    """Ten thousand of them, all different, all recognised."""
    ids = [new_id() for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(is_id(each) for each in ids)


def test_ids_sort_by_time(monkeypatch):
    """An id made a millisecond later sorts after, as text."""
    ids = []
    for nanoseconds in (1_700_000_000_000_000_000, 1_700_000_000_001_000_000, 1_800_000_000_000_000_000):
        monkeypatch.setattr(time, "time_ns", lambda now=nanoseconds: now)
        ids.append(new_id())
    assert ids == sorted(ids)


@pytest.mark.parametrize(
    "text", ["", "01JXABC", new_id().lower(), new_id()[:-1], new_id() + "0", "8" + "0" * 25, "I" * 26]
)
def test_what_is_no_id_is_recognised(text):
    """Prefixes, lower case, letters outside the alphabet, times past the year 10889."""
    assert not is_id(text)
