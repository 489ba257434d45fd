"""Groups within a job's group: what each may, counts and leaves, whichever version this host has."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from dayfly.runtime.cgroups import tasks
from dayfly.runtime.cgroups.hierarchy import Hierarchy
from dayfly.runtime.shape import Quotas

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("nothing_left")]

MIB = 1 << 20
Start = Callable[[Callable[[], object]], int]


def _needs(hierarchy: Hierarchy, *controllers: str) -> None:
    for name in controllers:
        if name in hierarchy.lacking:
            pytest.skip(hierarchy.lacking[name])


_held: list[bytearray] = []


def _eat(mib: int) -> None:
    """Take memory and keep it."""
    _held.append(bytearray(mib * MIB))
    for at in range(0, mib * MIB, 4096):
        _held[-1][at] = 1


def test_each_has_limits_and_readings_of_its_own(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """What the one within uses counts for the whole too; the limits of the whole stay what they were."""
    _needs(hierarchy, "cpu", "memory", "pids")
    whole = hierarchy.create(token)
    whole.apply(Quotas(cpus=0.8, memory_bytes=64 * MIB, pids=20))
    whole.divide(start(lambda: tasks.join(whole.joins)))
    db = whole.within("db")
    db.apply(Quotas(cpus=0.5, memory_bytes=32 * MIB, pids=5))
    start(lambda: (tasks.join(db.joins), _eat(16)))
    for group, held in ((db, (0.5, 32 * MIB, 5)), (whole, (0.8, 64 * MIB, 20))):
        effective = group.effective()
        assert (effective.cpus, effective.memory_bytes, effective.pids) == held
    assert db.current().memory_bytes >= 16 * MIB
    assert whole.current().memory_bytes >= 16 * MIB
    assert db.discard()
    assert whole.discard()


@pytest.mark.parametrize("limited", ["own", "whole"])
def test_out_of_memory_is_told_of_the_group_it_happened_in(
    hierarchy: Hierarchy, token: str, start: Start, limited: str
) -> None:
    """Whichever limit was met; the job's own processes have had none."""
    _needs(hierarchy, "memory")
    whole = hierarchy.create(token)
    whole.apply(Quotas(memory_bytes=(64 if limited == "own" else 16) * MIB))
    whole.divide(start(lambda: tasks.join(whole.joins)))
    db = whole.within("db")
    db.apply(Quotas(memory_bytes=(16 if limited == "own" else None) and 16 * MIB))

    def meet() -> None:
        tasks.join(db.joins)
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
        _eat(48)

    start(meet)
    assert db.oom().events == 1
    assert len(db.oom().victims) <= 1
    assert (whole.oom().events, whole.oom().victims) == (0, ())
    assert db.discard()
    assert whole.discard()


def test_what_a_killed_keeper_left_is_removed_with_all_that_is_within(
    hierarchy: Hierarchy, token: str, start: Start
) -> None:
    """Processes in it, groups in it, in one call; by an agent that knows nothing but the token."""
    whole = hierarchy.create(token)
    own = start(lambda: tasks.join(whole.joins))
    whole.divide(own)
    db, cache = whole.within("db"), whole.within("cache")
    pids = [own, start(lambda: tasks.join(db.joins)), start(lambda: tasks.join(cache.joins))]
    for group in (db, cache, whole):
        group.close()
    assert hierarchy.existing() == [token]
    assert hierarchy.remove(token)
    assert [signal.Signals(-os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])) for pid in pids] == [signal.SIGKILL] * 3
    assert hierarchy.existing() == []
