"""How an agent knows that a keeper lives, what it may delete of one, and that it never overcommits."""

import os
import select
import subprocess
import sys

import pytest

from dayfly.jobs.demand import Capacity
from dayfly.worker import jobfiles, joblock
from dayfly.worker.capacity import Ledger
from dayfly.worker.places import Places
from dayfly.worker.sweeper import Sweeper

_HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"


@pytest.fixture
def places(tmp_path):
    places = Places(tmp_path / "home")
    places.make()
    return places


def _holder(directory):
    os.makedirs(directory, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, f"{directory}/lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    process.stdout.readline()
    return process


def _end(process):
    process.communicate(b"\n")


def test_a_held_lock_names_its_process_and_its_end_is_seen(places):
    """follow() gives the very process that holds the lock, and a descriptor that tells of its end."""
    directory = places.keeper("k")
    process = _holder(directory)
    pid, pidfd = joblock.follow(directory)
    assert pid == process.pid
    _end(process)
    assert select.select([pidfd], [], [], 20.0)[0]
    os.close(pidfd)
    assert joblock.follow(directory) is None
    assert joblock.holder(places.keeper("never-was")) is None


class NoGroups:
    """A hierarchy with nothing in it."""

    def existing(self):
        return []


def test_sweeping_takes_the_dead_and_spares_the_living(places):
    """What bears the token of a dead keeper goes; what belongs to one that lives, or that the agent knows of, stays."""
    process = _holder(places.keeper("living"))
    for token in ("dead", "known"):
        os.mkdir(places.keeper(token))
    for token in ("dead", "known", "living"):
        os.makedirs(f"{places.disks}/{token}/root/upper/made")
    os.makedirs(f"{places.trash}/x/y/z")
    try:
        Sweeper(places, NoGroups()).sweep(["known"], within_seconds=20.0)
        assert sorted(os.listdir(places.keepers)) == ["known", "living"]
        assert sorted(os.listdir(places.disks)) == ["known", "living"]
        assert os.listdir(places.trash) == []
    finally:
        _end(process)


def test_a_sweep_without_time_says_that_it_is_behind_and_the_next_one_goes_on(places):
    """What a killed job leaves may be a million files: leases do not wait for it."""
    os.makedirs(f"{places.disks}/dead/root/upper")
    sweeper = Sweeper(places, NoGroups())
    sweeper.sweep([], within_seconds=0.0)
    assert (sweeper.is_behind, os.listdir(places.disks), len(os.listdir(places.trash))) == (True, [], 1)
    sweeper.sweep([], within_seconds=20.0)
    assert (sweeper.is_behind, os.listdir(places.trash)) == (False, [])


def test_discarding_by_descriptor_spares_a_later_attempt_at_the_same_path(places):
    """The old attempt's files go, wherever its directory was moved; what lies at its path by now stays whole."""
    directory = places.job("J1")
    os.mkdir(directory)
    open(f"{directory}/log", "w").close()
    fd = os.open(directory, os.O_RDONLY)
    places.throw_away(directory)
    os.mkdir(directory)
    open(f"{directory}/record.json", "w").close()
    assert jobfiles.discard(directory, fd)
    os.close(fd)
    assert os.listdir(directory) == ["record.json"]
    (thrown,) = os.listdir(places.trash)
    assert os.listdir(f"{places.trash}/{thrown}") == []


def test_discarding_takes_log_segments_and_half_written_files_and_nothing_foreign(places):
    """Every file of ours goes by its name; a name that is not ours makes discard say no, and stays."""
    directory = places.job("J1")
    os.mkdir(directory)
    for name in ("lock", "exit.json", "preparing", "stop.new", "log", "log.17", "stdin"):
        open(f"{directory}/{name}", "w").close()
    assert jobfiles.discard(directory)
    os.mkdir(directory)
    open(f"{directory}/foreign", "w").close()
    assert not jobfiles.discard(directory)
    assert os.listdir(directory) == ["foreign"]


def test_a_ledger_never_gives_more_than_it_has():
    """What is taken is not free, slots run out as amounts do, and giving back twice gives once."""
    ledger = Ledger(Capacity(4000, 1000, 1000), slots=2)
    assert ledger.share == Capacity(2000, 500, 500)
    ledger.take("a", Capacity(3000, 100, 100))
    assert ledger.free == Capacity(1000, 900, 900)
    ledger.take("b", Capacity(1000, 100, 100))
    assert ledger.free is None
    ledger.give_back("a")
    ledger.give_back("a")
    assert ledger.free == Capacity(3000, 900, 900)
