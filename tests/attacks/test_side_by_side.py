"""Two jobs side by side on one host: neither sees, signals, slows beyond its quota or fills the disk of the other."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dayfly.runtime.shape import Shape

pytestmark = pytest.mark.kernel

Attack = Callable[..., Any]
Begin = Callable[..., Any]

# The victim: it opens all doors that it has, says so, and then how it fared.
_VICTIM = """
import threading, time
shmget = 29 if os.uname().machine == "x86_64" else 194
open("/tmp/mine", "w").write("the victim's"); open("/dev/shm/mine", "w").write("x")
abstract = socket.socket(socket.AF_UNIX)
abstract.bind(chr(0) + "dayfly-victim"); abstract.listen()
server = socket.create_server(("127.0.0.1", 4242))
segment = call(shmget, 0x4242, 4096, 0o1000 | 0o666)
signals = []
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda got, frame: signals.append(got))
tell("ready")
begin = time.monotonic()
spent = time.process_time()
while time.monotonic() - begin < 3:
    pass
spent = time.process_time() - spent
written = 0
with open("/tmp/fill", "wb") as file:
    for _ in range(8):
        written += file.write(bytes(1 << 20))
    file.flush(); os.fsync(file.fileno())
tell([signals, spent, written, open("/tmp/mine").read()])
"""
_NEIGHBOUR = """
import multiprocessing, time
shmget = 29 if os.uname().machine == "x86_64" else 194
others = [pid for pid in range(2, 40000) if pid != os.getpid() and tries(os.kill, pid, signal.SIGUSR1) == 0]
abstract = tries(socket.socket(socket.AF_UNIX).connect, chr(0) + "dayfly-victim")
port = tries(socket.socket().connect, ("127.0.0.1", 4242))
shared = call(shmget, 0x4242, 0, 0)
files = [os.path.exists(path) for path in ("/tmp/mine", "/dev/shm/mine")]
def busy():
    while True:
        pass
busy_ones = [multiprocessing.Process(target=busy, daemon=True) for _ in range(4)]
[each.start() for each in busy_ones]
filled = 0
try:
    with open("/tmp/fill", "wb") as file:
        while True:
            filled += file.write(bytes(1 << 20))
except OSError as error:
    ended = error.errno
busy_ones[0].join(3)
tell([others, abstract, port, shared, files, ended, filled])
"""


@pytest.mark.host_root("its control needs what host root alone can take away")
def test_neither_of_two_jobs_reaches_the_other(begin: Begin, tally: Any, shape: Shape) -> None:
    """The neighbour kills, connects, looks, burns and fills with all it has; the victim does not notice."""
    own = replace(shape.quotas, cpus=0.5)
    victim = begin(_VICTIM, quotas=own)
    assert victim.told() == "ready"
    neighbour = begin(_NEIGHBOUR, quotas=replace(shape.quotas, cpus=0.3))
    seen, fared = neighbour.told(), victim.told()
    others, abstract, port, shared, files, ended, filled = seen
    met = (others, abstract, port, shared, files)
    signals, spent, written, kept = fared
    used = neighbour.container.usage()
    held = (
        met == ([], errno.ECONNREFUSED, errno.ECONNREFUSED, errno.ENOENT, [False, False])
        and ended == errno.ENOSPC
        and filled < shape.disk_bytes * 1.1  # its size is what fits, and a little
        and (signals, written, kept) == ([], 8 << 20, "the victim's")
    )
    assert used.cpu_throttled_seconds is None or used.cpu_throttled_seconds > 0
    assert spent <= 3 * 0.5 * 1.2, "the victim had more than its quota"
    inside = begin(_VICTIM.replace('tell("ready")', _MEETS), quotas=own).told()
    tally.judge(held=held, bit=inside == [0, 0, 0], seen=(seen, fared, inside))


# The control: what the neighbour looks for is there, for one who is in the same container.
_MEETS = """
tell([tries(socket.socket(socket.AF_UNIX).connect, chr(0) + "dayfly-victim"),
      tries(socket.socket().connect, ("127.0.0.1", 4242)), call(shmget, 0x4242, 0, 0)])
"""


@pytest.mark.limits
def test_the_quota_of_a_busy_neighbour_holds(begin: Begin, tally: Any, shape: Shape) -> None:
    """Four busy processes on a quota of a twentieth take no more than that from whoever else runs on the host."""
    busy = """
import multiprocessing, time
def burn():
    while True:
        pass
begin, burning = time.monotonic(), [multiprocessing.Process(target=burn, daemon=True) for _ in range(4)]
[each.start() for each in burning]
for _ in range(2):
    burning[0].join(2)
    tell(time.monotonic() - begin)
signal.pause()
"""

    def share(cpus: float | None) -> float:
        running = begin(busy, quotas=replace(shape.quotas, cpus=cpus))
        looks = [(running.told(), running.container.current().cpu_seconds or 0.0) for _ in range(2)]
        running.leave()
        return float((looks[1][1] - looks[0][1]) / (looks[1][0] - looks[0][0]))

    held, bit = share(0.05), share(None)
    tally.judge(held=held < 0.08, bit=bit > 1.5 * held, seen=(held, bit))


@pytest.mark.limits
def test_memory_that_one_job_runs_out_of_is_not_anothers(begin: Begin, run: Attack, tally: Any) -> None:
    """A neighbour that is killed for its memory takes no process of another job along."""
    victim = begin("tell(os.getpid()); sys.stdin.read(); signal.pause()")
    victim.told()
    bit = run("python3", "-c", "bytearray(1 << 30)").end.signal
    lives = Path(f"/proc/{victim.container.init.pid}/task/{victim.container.init.pid}/children").read_text().split()
    tally.judge(
        held=len(lives) == 1 and os.path.exists(f"/proc/{lives[0]}"), bit=bit == signal.SIGKILL, seen=(lives, bit)
    )
