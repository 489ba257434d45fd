"""The kernel's log as a witness."""

import pytest

from dayfly.runtime.cgroups import kmsg
from dayfly.runtime.cgroups.readings import Victim

REASON = (
    "6,100,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg={group},task_memcg={group},task={name},pid={pid},uid=0\n"
)
KILLED = (
    "3,101,1,-;Memory cgroup out of memory: Killed process {pid} ({name}) total-vm:900kB, anon-rss:100kB, "
    "file-rss:20kB, shmem-rss:3kB, UID:0 pgtables:96kB oom_score_adj:0\n"
)


def _log(group: str, name: str, pid: int) -> list[str]:
    return [each.format(group=group, name=name, pid=pid) for each in (REASON, KILLED)]


def test_victims_of_this_group_alone_are_named() -> None:
    """Another job's victim, and one of a group whose name merely begins alike, are left out."""
    records = [*_log("/dayfly-1/aa", "mine", 5), *_log("/dayfly-1/ab", "theirs", 6), *_log("/dayfly-1/aaa", "no", 7)]
    assert kmsg.find_victims(iter(records), "/dayfly-1/aa") == (Victim("mine", 123 * 1024),)


@pytest.mark.parametrize("name", ["a,pid=1", "x) total-vm:9kB", "Killed process 9 (b", "oom-kill:", ""])
def test_a_hostile_name_is_only_a_name(name: str) -> None:
    """A job chooses its processes' names; they break nothing and kill nobody else."""
    records = _log("/dayfly-1/aa", name, 5)
    assert kmsg.find_victims(iter(records), "/dayfly-1/aa") == (Victim(name, 123 * 1024),)


def test_rubbish_in_the_log_is_passed_over() -> None:
    """Half lines and odd numbers give no victim and no error."""
    records = [
        "",
        "Killed process",
        "oom-kill:/dayfly-1/aa,task_memcg=",
        "Killed process x (y) total-vm:1kB, anon-rss:kB",
    ]
    assert kmsg.find_victims(iter(records), "/dayfly-1/aa") == ()


def test_victims_are_bounded() -> None:
    """A job that is killed for ever fills no result."""
    records = [line for pid in range(1000) for line in _log("/dayfly-1/aa", "x", pid)]
    assert len(kmsg.find_victims(iter(records), "/dayfly-1/aa")) == 20
