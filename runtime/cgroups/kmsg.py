"""The kernel's log as a witness: whom did it kill for a group's memory limit?

The counters of a control group say how often; only the log says whom. Reading it needs CAP_SYSLOG on most hosts, and
it is a ring, so this is best effort: what is not found is left out. Two lines belong together (mm/oom_kill.c):

    oom-kill:constraint=CONSTRAINT_MEMCG,…,oom_memcg=/dayfly-1a/7f,task_memcg=/dayfly-1a/7f,task=python3,pid=123,uid=0
    Memory cgroup out of memory: Killed process 123 (python3) total-vm:…kB, anon-rss:…kB, file-rss:…kB, shmem-rss:…kB
"""

import os
from collections.abc import Iterator
from contextlib import suppress

from dayfly.runtime.cgroups.readings import Victim

_RECORDS_AT_MOST = 20_000
_VICTIMS_AT_MOST = 20


def open_at_end() -> int | None:
    """A descriptor of the log that will read only what comes from now on; None where the log may not be read."""
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    os.lseek(fd, 0, os.SEEK_END)
    return fd


def victims(fd: int, group: str) -> tuple[Victim, ...]:
    """The processes of the group whose path ends in `group` that were killed for its limit or one around it, in order
    of death. Those of groups within it are not among them."""
    return find_victims(_records(fd), group)


def find_victims(records: Iterator[str], group: str) -> tuple[Victim, ...]:
    """The same, from the log's lines."""
    found: list[Victim] = []
    condemned: set[str] = set()
    for record in records:
        if "oom-kill:" in record and "oom_memcg=" in record and f"{group},task=" in record:
            # The task's name may hold anything, a comma too; the pid comes after it.
            condemned.add(record.rpartition(",pid=")[2].partition(",")[0])
        elif "Killed process " in record:
            pid, _, rest = record.partition("Killed process ")[2].partition(" (")
            name, _, sizes = rest.rpartition(") total-vm:")
            if pid in condemned:
                found.append(Victim(name, _resident_bytes(sizes)))
            if len(found) == _VICTIMS_AT_MOST:
                break
    return tuple(found)


def _resident_bytes(sizes: str) -> int:
    """The sum of `anon-rss:12kB, file-rss:3kB, shmem-rss:0kB`."""
    return sum(
        int(field.partition("-rss:")[2].partition("kB")[0]) * 1024 for field in sizes.split(",") if "-rss:" in field
    )


def _records(fd: int) -> Iterator[str]:
    with suppress(BlockingIOError):  # the end of the log
        for _ in range(_RECORDS_AT_MOST):
            with suppress(BrokenPipeError):  # the ring went over the record; the next read is at the oldest one left
                yield os.read(fd, 8192).decode(errors="replace")
