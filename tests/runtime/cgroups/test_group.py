"""What a group promises, whichever version this host has."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups import tasks
from dayfly.runtime.cgroups.hierarchy import Hierarchy, open_hierarchy, unenforceable
from dayfly.runtime.cgroups.readings import Victim
from dayfly.runtime.shape import IoQuota, Quotas

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("nothing_left")]

MIB = 1 << 20
Start = Callable[[Callable[[], object]], int]


def _deadline(seconds: float = 10.0) -> float:
    return time.monotonic() + seconds


def test_limits_read_back_as_they_were_stated(hierarchy: Hierarchy, token: str) -> None:
    """cpus, weight, memory without swap, pids: what the kernel holds is what was asked for."""
    group = hierarchy.create(token)
    group.apply(Quotas(cpus=1.5, cpu_weight=50, memory_bytes=256 * MIB, pids=77))
    effective = group.effective()
    assert effective.cpus == 1.5
    assert effective.cpu_weight == 50
    assert effective.memory_bytes == 256 * MIB
    assert effective.pids == 77
    if "swap" not in hierarchy.lacking:
        assert effective.swap_bytes == 0
    assert group.discard()


def test_a_fresh_group_has_no_limits(hierarchy: Hierarchy, token: str) -> None:
    """Nothing stated is nothing limited."""
    group = hierarchy.create(token)
    group.apply(Quotas())
    effective = group.effective()
    assert (effective.cpus, effective.memory_bytes, effective.pids, effective.io) == (None, None, None, ())
    assert group.discard()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Quotas(memory_bytes=64 * MIB), Quotas(memory_bytes=128 * MIB)),
        (Quotas(memory_bytes=128 * MIB), Quotas(memory_bytes=64 * MIB, swap_bytes=16 * MIB)),
        (Quotas(memory_bytes=64 * MIB, swap_bytes=64 * MIB), Quotas(memory_bytes=256 * MIB)),
        (Quotas(cpus=2.0, cpu_burst_us=150_000), Quotas(cpus=0.5)),
        (Quotas(cpus=0.5), Quotas(cpus=2.0, cpu_burst_us=150_000)),
        (Quotas(cpus=0.5, pids=10, memory_bytes=64 * MIB), Quotas()),
    ],
)
def test_limits_change_in_any_direction(hierarchy: Hierarchy, token: str, first: Quotas, second: Quotas) -> None:
    """A guess at the limits is replaced by others, up or down, whatever order the kernel wants."""
    if unenforceable(hierarchy, first) or unenforceable(hierarchy, second):
        pytest.skip("this host cannot enforce them")
    group, fresh = hierarchy.create(token), hierarchy.create(token[::-1] + "0")
    group.apply(first)
    group.apply(second)
    fresh.apply(second)
    assert group.effective() == fresh.effective()
    assert group.discard()
    assert fresh.discard()


def test_io_limits_are_set_and_taken_away(hierarchy: Hierarchy, token: str) -> None:
    """A limit of one device reads back; without it nothing is limited."""
    if unenforceable(hierarchy, Quotas(io=(IoQuota(device="1:0", read_bps=1),))):
        pytest.skip("this host cannot limit io")
    device = next(f"{name}" for name in _whole_disks())
    quota = IoQuota(device=device, read_bps=10 * MIB, write_iops=500)
    group = hierarchy.create(token)
    group.apply(Quotas(io=(quota,)))
    assert group.effective().io == (quota,)
    group.apply(Quotas())
    assert group.effective().io == ()
    assert group.discard()


def _whole_disks() -> list[str]:
    found = []
    for name in os.listdir("/sys/block"):
        with open(f"/sys/block/{name}/dev") as file:
            found.append(file.read().strip())
    return found


def test_a_limit_the_kernel_refuses_is_named_with_its_value(hierarchy: Hierarchy, token: str) -> None:
    """The error says which file, which value, which group."""
    group = hierarchy.create(token)
    with pytest.raises(HostError, match=rf"cannot set .*device.* in /sys/fs/cgroup.*{token}|io.max"):
        group.apply(Quotas(io=(IoQuota(device="999:999", read_bps=1),)))
    assert group.discard()


def test_a_group_is_never_made_twice(hierarchy: Hierarchy, token: str) -> None:
    """An existing token is an error, and the existing group stays as it was."""
    group = hierarchy.create(token)
    with pytest.raises(HostError, match="File exists"):
        hierarchy.create(token)
    assert hierarchy.existing() == [token]
    assert group.discard()


def test_a_child_joins_is_counted_and_killed(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """Usage counts what the child burns; kill ends it; the group is empty and goes."""
    group = hierarchy.create(token)

    def burn() -> None:
        tasks.join(group.joins)
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    pid = start(burn)
    assert not group.is_empty()
    usage, sample = group.usage(), group.current()
    assert usage.cpu_user_seconds is not None
    assert usage.cpu_system_seconds is not None
    assert usage.cpu_user_seconds + usage.cpu_system_seconds >= 0.04
    if sample.cpu_seconds is not None:
        assert sample.cpu_seconds >= 0.04
    assert group.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert group.wait_empty(_deadline())
    assert group.discard()
    assert hierarchy.existing() == []


def test_another_process_can_be_moved_in(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """`tasks.join` takes a pid."""
    group = hierarchy.create(token)
    pid = start(lambda: None)
    assert group.is_empty()
    tasks.join(group.joins, pid)
    assert not group.is_empty()
    assert group.discard()


def test_moving_a_dead_process_says_so(hierarchy: Hierarchy, token: str) -> None:
    """The error names the process."""
    group = hierarchy.create(token)
    with pytest.raises(HostError, match=r"cannot move process 2147483647 into the job's control group"):
        tasks.join(group.joins, 2147483647)
    assert group.discard()


def test_daemons_that_fork_while_they_are_killed_are_killed(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """Sessions of their own, SIGTERM ignored, forking all the time: none outlives kill (D7)."""
    group = hierarchy.create(token)
    if "pids" not in hierarchy.lacking:
        group.apply(Quotas(pids=40))

    def fork_for_ever() -> None:
        tasks.join(group.joins)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                while True:
                    try:
                        if os.fork() == 0:
                            signal.pause()
                    except OSError:
                        continue

    start(fork_for_ever)
    assert group.kill(within_seconds=10.0)
    assert group.is_empty()
    assert group.discard()


def test_a_fork_bomb_stops_at_the_pids_limit(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """With pids 10 the eleventh process cannot be made, and the peak says ten."""
    if "pids" in hierarchy.lacking:
        pytest.skip(hierarchy.lacking["pids"])
    group = hierarchy.create(token)
    group.apply(Quotas(pids=10))

    def bomb() -> None:
        tasks.join(group.joins)
        made = 0
        try:
            while made < 100:
                if os.fork() == 0:
                    signal.pause()
                made += 1
        except BlockingIOError:
            assert made == 9

    start(bomb)
    assert group.usage().pids_peak in (10, None)
    assert group.discard()


def test_out_of_memory_kills_the_job_and_names_the_victim(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """One event, the victim's name and size from the kernel's log, the peak at the limit."""
    if "memory" in hierarchy.lacking:
        pytest.skip(hierarchy.lacking["memory"])
    group = hierarchy.create(token)
    group.apply(Quotas(memory_bytes=32 * MIB))
    assert group.oom().events == 0

    def eat() -> None:
        tasks.join(group.joins)
        with open("/proc/self/comm", "w") as comm:
            comm.write("eats (a, pid=9)")
        assert len(bytearray(128 * MIB)) > 0

    pid = start(eat)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    oom = group.oom()
    assert oom.events == 1
    if os.access("/dev/kmsg", os.R_OK):
        (victim,) = oom.victims
        assert victim == Victim("eats (a, pid=9)", victim.rss_bytes)
        assert victim.rss_bytes > 16 * MIB
    assert group.usage().memory_peak_bytes in range(31 * MIB, 32 * MIB + 1)
    assert group.discard()


def test_without_a_limit_the_same_program_lives(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """The control: it is the limit that kills."""
    group = hierarchy.create(token)

    def eat() -> None:
        tasks.join(group.joins)
        assert len(bytearray(128 * MIB)) > 0

    start(eat)
    assert not group.is_empty()
    assert group.oom().events == 0
    assert group.discard()


def test_a_cpu_quota_throttles(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """A busy loop under a tenth of a cpu is throttled; its time is counted."""
    if "cpu" in hierarchy.lacking:
        pytest.skip(hierarchy.lacking["cpu"])
    group = hierarchy.create(token)
    group.apply(Quotas(cpus=0.1))

    def burn() -> None:
        tasks.join(group.joins)
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass

    start(burn)
    throttled = group.usage().cpu_throttled_seconds
    assert throttled is not None
    assert throttled > 0.3
    assert group.discard()


def test_discard_works_from_any_state(hierarchy: Hierarchy, token: str, start: Start) -> None:
    """Never used, twice, with a process still in it, and by another process that only knows the token."""
    never_used = hierarchy.create(token)
    assert never_used.discard()
    assert never_used.discard()
    busy = hierarchy.create(token)
    start(lambda: tasks.join(busy.joins))
    again = open_hierarchy(hierarchy.name.removeprefix("dayfly-"))
    assert again.existing() == [token]
    assert again.remove(token)
    assert again.remove(token)
    assert again.existing() == []
    busy.close()


def test_nothing_is_open_after_discard(hierarchy: Hierarchy, token: str) -> None:
    """Descriptors do not add up over jobs."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        group = hierarchy.create(token)
        group.apply(Quotas(pids=10))
        assert group.discard()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("needs_root")
def test_leaving_takes_our_directories_away_unless_a_job_goes_on(token: str) -> None:
    """The home's own directories stay as long as one group is in them, and a second leave does no harm."""
    hierarchy = open_hierarchy(f"test{token[:8]}")
    directories = set(hierarchy.describe()["directories"].values())
    group = hierarchy.create(token)
    hierarchy.leave()
    assert all(os.path.isdir(directory) for directory in directories)
    assert group.discard()
    for _ in range(2):
        hierarchy.leave()
        assert not any(os.path.exists(directory) for directory in directories)
