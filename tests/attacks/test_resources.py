"""What one job can take from the others: D1 to D4 and D7 of the list in docs/security.md."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dayfly.runtime.shape import Quotas, Shape

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]
Run = Callable[..., Any]

_FORKS = """
import json, os, time
made = 0
try:
    for _ in range(300):
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(json.dumps(made))
"""


@pytest.mark.limits
def test_d1_a_fork_bomb_meets_its_limit(attack: Attack, tally: Any, shape: Shape) -> None:
    """pids.max stops it at 64; without the limit the same program has its 300."""
    held = attack(_FORKS)
    bit = attack(_FORKS, quotas=replace(shape.quotas, pids=None))
    tally.judge(held=held < 64, bit=bit == 300, seen=(held, bit))


_HEAP = "bytearray(160 << 20)"
# In one call: between two of them a kernel may reclaim the program's own text over and over, and never get to its end.
_SHM = "import os; os.posix_fallocate(os.open('/dev/shm/fill', os.O_CREAT | os.O_RDWR), 0, 160 << 20)"


@pytest.mark.limits
@pytest.mark.parametrize("program", [_HEAP, _SHM], ids=["heap", "shm"])
def test_d2_memory_and_shared_memory_meet_their_limit(run: Run, tally: Any, program: str) -> None:
    """160 MiB in a job of 100 are its end, be it heap or /dev/shm; in one of 512 they fit."""

    def with_memory(mebibytes: int) -> Any:
        quotas = Quotas(memory_bytes=mebibytes << 20, swap_bytes=0, pids=64)
        return run("python3", "-c", program, quotas=quotas, shm_bytes=200 << 20)

    held, bit = with_memory(100), with_memory(512)
    tally.judge(
        held=held.end.signal == signal.SIGKILL and held.container.oom().events > 0,
        bit=bit.exit_code == 0,
        seen=(held, bit),
    )


_BUSY = """
import json, time
begin, cpu = time.monotonic(), time.process_time()
while time.monotonic() - begin < 1:
    pass
print(json.dumps(time.process_time() - cpu))
"""


@pytest.mark.limits
def test_d3_a_busy_loop_has_its_share(attack: Attack, tally: Any, shape: Shape) -> None:
    """A quota of 0.05 cpus is 0.05 seconds a second, and one period's more; without it there is more to be had."""
    held = attack(_BUSY, quotas=replace(shape.quotas, cpus=0.05))
    bit = attack(_BUSY, quotas=replace(shape.quotas, cpus=None))
    tally.judge(held=held < 0.1, bit=bit > 1.5 * held, seen=(held, bit))


_INODES = """
import json
made = 0
try:
    for number in range(20000):
        open(f"/tmp/{number}", "w").close()
        made += 1
except OSError as error:
    pass
print(json.dumps(made))
"""


@pytest.mark.host_root("a disk is a directory there, without a limit")
def test_d4_a_million_empty_files_meet_the_disks_inodes(attack: Attack, tally: Any) -> None:
    """A disk of 64 MiB has some 8,000 inodes, and they are the job's own; a disk of 512 MiB has more than enough."""
    held, bit = attack(_INODES), attack(_INODES, disk_bytes=512 << 20)
    tally.judge(held=held < 20000, bit=bit == 20000, seen=(held, bit))


def test_d6_descriptors_are_bounded(attack: Attack) -> None:
    """A job may open as many files as the host's hard limit says, and no more."""
    program = """
import json, os
opened = 0
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
        opened += 1
except OSError as error:
    print(json.dumps([opened, error.errno]))
"""
    opened, _ = attack(program, quotas=Quotas(memory_bytes=256 << 20, swap_bytes=0, pids=64))
    assert opened < resource.getrlimit(resource.RLIMIT_NOFILE)[1]


_DAEMON = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            if os.fork() == 0:
                time.sleep(0.05)
                os._exit(0)
            os.waitpid(-1, 0)
    os._exit(0)
os.wait()
print(1, flush=True)
"""


def test_d7_a_daemon_that_forks_on_dies_with_its_job(run: Run) -> None:
    """Double fork, a session of its own, no signal heeded, a new child every moment: gone within two seconds."""
    ran = run("python3", "-c", _DAEMON)
    begin = time.monotonic()
    ran.container.discard()
    assert time.monotonic() - begin < 2
    assert ran.stdout == "1\n"


def test_d8_a_child_that_holds_the_output_does_not_hold_the_job(run: Run) -> None:
    """CVE-2026-53495: the command's end is told though a child of it keeps the pipes open."""
    ran = run("sh", "-c", "sleep 300 & echo done")
    assert (ran.stdout, ran.exit_code) == ("done\n", 0)
    assert not os.path.exists(f"/proc/{ran.container.init.pid}")
