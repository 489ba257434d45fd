"""Sizes and durations as people write them."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayfly.jobs.units import MAX_BYTES, format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1b", 1),
        ("10k", 10 << 10),
        ("10KB", 10 << 10),
        ("10KiB", 10 << 10),
        ("512m", 512 << 20),
        ("512M", 512 << 20),
        ("64MiB", 64 << 20),
        ("2G", 2 << 30),
        ("1.5GiB", 3 << 29),
        ("1.1G", 11 * (1 << 30) // 10),
        ("3T", 3 << 40),
        ("1P", 1 << 50),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_a_size_is_a_power_of_1024_as_docker_has_it(text, size):
    """K, M, G with or without B or iB, in either case, to the byte."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", " 1", "1 ", "1 G", "G", "-1", "+1", "1e3", "1.", ".5G", "1.5.5G", "1x", "1ii", "1ib", "0x10", "1_000",
     "\u0661G", "9" * 5000],
)  # fmt: skip
def test_what_is_no_size_is_refused(text):
    """Nothing is guessed: no spaces, signs, exponents or foreign digits."""
    with pytest.raises(ValueError, match=r"is not a size|or less"):
        parse_size(text)


def test_a_size_that_no_disk_has_is_refused():
    """2^63 would wrap in the kernel."""
    with pytest.raises(ValueError, match="1E or less"):
        parse_size(str(2**63))


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1K"), (1536, "1.5K"), (1 << 20, "1M"), (-2048, "-2K"),
     ((1 << 20) - 1, "1M"), (1 << 30, "1G"), (1 << 60, "1E"), (1 << 72, "4096E")],
)  # fmt: skip
def test_a_size_for_people_has_the_largest_unit(size, text):
    """One decimal where needed, and never 1024 of a unit."""
    assert format_size(size) == text


@given(st.integers(1, 1023), st.sampled_from("KMGTP"))
def test_whole_units_survive_formatting_and_parsing(count, unit):
    """What format_size writes without a decimal, parse_size reads back."""
    assert format_size(parse_size(f"{count}{unit}")) == f"{count}{unit}"


@given(st.text())
def test_parsing_any_text_gives_a_value_or_a_reason(text):
    """Never another error than ValueError, never a negative or enormous number."""
    for parse in (parse_size, parse_duration):
        with contextlib.suppress(ValueError):
            assert 0 <= parse(text) <= MAX_BYTES


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("1.5", 1.5), ("90s", 90), ("250ms", 0.25), ("1.5s", 1.5), ("5m", 300), ("1h30m", 5400),
     ("1h30m5s", 5405), ("1s500ms", 1.5), ("7d", 604800), ("2w", 1209600), ("01:30:00", 5400), ("00:00:01", 1),
     ("100:00:00", 360000)],
)  # fmt: skip
def test_a_duration_reads_as_people_write_it(text, seconds):
    """Units from large to small, a clock, or bare seconds."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "1x", "-5m", "30m1h", "5m5m", "1h30", "1:30", "1:60:00", "1:00:60", "1:2:3:4", "::", "5 m", "5M",
     "9" * 30 + "s", "1e3"],
)  # fmt: skip
def test_what_is_no_duration_is_refused(text):
    """Units out of order or twice, half a clock, spaces: a typing error, not a wish."""
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_duration_over_ten_years_is_refused():
    """Beyond that it is a mistake, and timers overflow."""
    with pytest.raises(ValueError, match="ten years"):
        parse_duration("4000d")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0001, "0s"), (0.25, "250ms"), (0.9994, "999ms"), (0.9999, "1s"), (1, "1s"), (1.5, "1.5s"),
     (59.99, "1m"), (90, "1m30s"), (3599.9, "1h"), (5400, "1h30m"), (5405, "1h30m"), (86400, "1d"), (90061, "1d1h"),
     (-5, "-5s")],
)  # fmt: skip
def test_a_duration_for_people_has_its_two_largest_units(seconds, text):
    """Rounded, and never 60 of a unit."""
    assert format_duration(seconds) == text
