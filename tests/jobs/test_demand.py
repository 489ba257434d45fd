"""Demand classes: rounding, names, fit."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dayfly.jobs.demand import Capacity, Demand, class_name, round_cpus, round_mib, stated_need
from dayfly.jobs.spec import Directory, JobSpec, Limits

_MIB = 1 << 20


@pytest.mark.parametrize(
    ("cpus", "milli"),
    [(0.01, 50), (0.1, 100), (0.25, 250), (0.26, 300), (1, 1000), (1.1, 1250), (1.5, 1500), (2, 2000), (3, 3000),
     (4.1, 4500), (8, 8000), (8.1, 9000), (95.5, 96000)],
)  # fmt: skip
def test_cpus_are_rounded_up_to_a_step(cpus, milli):
    """Never down, and what people write stays as it is."""
    assert round_cpus(cpus) == milli


@pytest.mark.parametrize(
    "size", ["512", "1024", "1536", "2048", "3072", "4096", "5120", "6144", "7168", "8192", "10240", "12288", "65536"]
)
def test_sizes_that_people_write_are_not_rounded(size):
    """512M, 1G, 1.5G, 2G … 64G are on the grid."""
    assert round_mib(int(size) * _MIB) == int(size)


@given(st.integers(1, 1 << 60))
def test_a_size_is_rounded_up_by_an_eighth_at_most(size):
    """Never down, never by more than 12.5 % (beyond the one MiB), and rounding twice changes nothing."""
    mib = round_mib(size)
    assert size <= mib * _MIB < (size + _MIB) * 1.125 + 1
    assert round_mib(mib * _MIB) == mib


@given(st.floats(0.01, 8192))
def test_cpus_are_never_rounded_down(cpus):
    """A host is never overcommitted by its own rounding."""
    milli = round_cpus(cpus)
    assert cpus * 1000 - 1e-3 <= milli < cpus * 1000 + 1001
    assert round_cpus(milli / 1000) == milli


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (JobSpec(), "ci@-:-:-"),
        (JobSpec(limits=Limits(cpus=2, memory_bytes=4 << 30, disk_bytes=10 << 30)), "ci@2000:4096:10240"),
        (JobSpec(priority=10), "ci@-:-:-:p10"),
        (JobSpec(priority=-3), "ci@-:-:-:p-3"),
        (JobSpec(labels={"gpu": "", "disk": "nvme"}), "ci@-:-:-:ldisk=nvme,gpu"),
        (JobSpec(labels={"zone/a": "x+y"}), "ci@-:-:-:lzone~2Fa=x~2By"),
        (JobSpec(dir=Directory("/w", "node-7", 1, 2), limits=Limits(memory_bytes=1 << 30)), "ci@-:1024:-:hnode-7"),
        (JobSpec(dir=Directory(bundle="sha256:" + "0" * 64)), "ci@-:-:-"),
    ],
)
def test_a_class_is_named_after_what_decides_where_a_job_runs(spec, name):
    """Numbers, priority, host and labels; nothing else of the job."""
    assert class_name("ci", Demand.of(spec)) == name


_NUMBERS = st.none() | st.integers(1, 1 << 40)
_DEMANDS = st.builds(
    Demand,
    cpus_milli=_NUMBERS,
    memory_mib=_NUMBERS,
    disk_mib=_NUMBERS,
    priority=st.integers(-100, 100),
    labels=st.dictionaries(st.text(min_size=1), st.text(), max_size=4).map(lambda each: tuple(sorted(each.items()))),
    host=st.none() | st.text(min_size=1),
)


@given(_DEMANDS.filter(lambda each: str(each).isprintable()), _DEMANDS.filter(lambda each: str(each).isprintable()))
def test_a_name_says_everything_and_is_safe_in_a_key(demand, other):
    """Different demands have different names; no space, brace or glob letter is in one."""
    name = class_name("ci", demand)
    assert (name == class_name("ci", other)) == (demand == other)
    assert name.isascii()
    assert not set(name) & set(" \t\n{}*?[]/%\\\"'")


@given(_DEMANDS, st.sampled_from(["labels", "host"]), st.sampled_from("/,:=~@*%"))
def test_no_letter_of_a_label_or_host_is_taken_for_a_separator(demand, field, letter):
    """A label or host that holds a separator is told from the same one without it."""
    text = f"a{letter}b"
    values = [((text, ""),), (("a", "b"),), (("a", ""), ("b", ""))] if field == "labels" else [text, "a", "ab"]
    names = {class_name("ci", replace(demand, **{field: value})) for value in values}
    assert len(names) == 3


def test_what_is_not_stated_is_one_slots_share():
    """Of whatever host takes the job."""
    offer = Capacity(cpus_milli=4000, memory_mib=8192, disk_mib=100_000)
    share = offer.share(4)
    assert share == Capacity(1000, 2048, 25_000)
    assert Demand(memory_mib=512).need(share) == Capacity(1000, 512, 25_000)


def test_a_host_holds_what_is_within_all_three():
    """Free capacity is counted in cpus, memory and disk alike."""
    free = Capacity(2000, 1024, 500)
    assert free.holds(Capacity(2000, 1024, 500))
    assert not any(free.holds(each) for each in (Capacity(2001, 1, 1), Capacity(1, 1025, 1), Capacity(1, 1, 501)))
    assert free - Capacity(500, 24, 100) + Capacity(500, 24, 100) == free


@pytest.mark.parametrize(
    ("limits", "need"),
    [(Limits(), "-:-:-"), (Limits(cpus=4.1), "4100:-:-"), (Limits(memory_bytes=100 << 30, disk_bytes=1), "-:102400:1")],
)
def test_what_a_job_states_is_also_known_unrounded(limits, need):
    """A job that asks for nearly all of a host is told by it from one that asks for more."""
    assert stated_need(JobSpec(limits=limits)) == need
