"""Version 2: its files on a plain directory, its processes on the real tree where this host has one."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups import controlfile, delegation, mounts, tasks, v2, v2_limits
from dayfly.runtime.cgroups.readings import Oom, Pressure
from dayfly.runtime.shape import IoQuota, Quotas

MIB = 1 << 20
FILES = {
    "cgroup.procs": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cgroup.subtree_control": "",
    "cpu.max": "max 100000\n",
    "cpu.max.burst": "0\n",
    "cpu.weight": "100\n",
    "cpu.stat": "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnr_periods 5\nthrottled_usec 250000\n",
    "cpu.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 total=1\n",
    "memory.max": "max\n",
    "memory.swap.max": "max\n",
    "memory.current": "4096\n",
    "memory.peak": "8192\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 1\noom_kill 2\noom_group_kill 0\n",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    "io.max": "",
    "io.stat": "8:0 rbytes=100 wbytes=200 rios=1 wios=2 dbytes=0\n7:3 rbytes=50 wbytes=360 rios=1 wios=1\n254:0\n",
    "io.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=20\n",
    "pids.max": "max\n",
    "pids.peak": "12\n",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with the files of a group."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def test_limits_are_written_as_version_2_has_them(directory: Path) -> None:
    """Each quota in its file; memory without stated swap allows none."""
    group = v2.Cgroup(str(directory), "/x/y")
    group.apply(Quotas(cpus=1.5, cpu_burst_us=1000, cpu_weight=50, memory_bytes=MIB, pids=7))
    expected = {"cpu.max": "150000 100000", "cpu.max.burst": "1000", "cpu.weight": "50", "memory.max": "1048576"}
    for name, value in expected.items():
        # The kernel replaces a value; a plain file keeps the rest of a longer one.
        assert (directory / name).read_text().startswith(value)
    assert (directory / "memory.swap.max").read_text().startswith("0")
    assert (directory / "pids.max").read_text().startswith("7")
    group.close()


def test_only_differences_are_written(directory: Path) -> None:
    """A file whose limit is held already is not touched."""
    group = v2.Cgroup(str(directory), "/x/y")
    group.apply(Quotas(pids=7, memory_bytes=MIB))
    for name in ("pids.max", "memory.max"):
        (directory / name).write_text("untouched")
    group.apply(Quotas(pids=8, memory_bytes=MIB))
    assert (directory / "memory.max").read_text() == "untouched"
    assert (directory / "pids.max").read_text().startswith("8")
    group.close()


def test_io_limits_are_one_line_per_device() -> None:
    """What is not limited is max."""
    quota = IoQuota(device="8:0", read_bps=100, write_iops=5)
    assert v2_limits.io(Quotas(io=(quota,))) == {"io.max 8:0": "rbps=100 wbps=max riops=max wiops=5"}


def test_the_least_rate_is_the_least_that_the_kernel_takes() -> None:
    """1 is EINVAL in io.max, and a job may ask for it: it gets 2."""
    quota = IoQuota(device="8:0", write_bps=1)
    assert v2_limits.io(Quotas(io=(quota,))) == {"io.max 8:0": "rbps=max wbps=2 riops=max wiops=max"}


def test_usage_is_read_from_its_files(directory: Path) -> None:
    """Microseconds become seconds; a loop device's bytes are not counted twice."""
    group = v2.Cgroup(str(directory), "/x/y")
    usage = group.usage()
    assert (usage.cpu_user_seconds, usage.cpu_system_seconds, usage.cpu_throttled_seconds) == (2.0, 1.0, 0.25)
    assert (usage.memory_peak_bytes, group.current().memory_bytes, usage.pids_peak) == (8192, 4096, 12)
    assert (usage.io_read_bytes, usage.io_written_bytes) == (100, 360)
    assert group.current().cpu_seconds == 3.0
    assert group.oom() == Oom(2, group.oom().victims)
    assert group.pressure() == Pressure(1.5, 0.0, 0.00002)
    group.close()


def test_what_the_kernel_does_not_count_is_none(directory: Path) -> None:
    """Older kernels have no peaks, psi=0 has no pressure: none of it is made up."""
    for name in ("memory.peak", "pids.peak", "io.stat", "cpu.pressure", "memory.pressure", "io.pressure"):
        (directory / name).unlink()
    group = v2.Cgroup(str(directory), "/x/y")
    usage = group.usage()
    assert (usage.memory_peak_bytes, usage.pids_peak, usage.io_read_bytes) == (None, None, None)
    assert group.pressure() is None
    group.close()


def test_effective_limits_are_read_back(directory: Path) -> None:
    """What the kernel has is what is told, io included."""
    for name, text in {
        "cpu.max": "50000 100000",
        "memory.max": "1048576",
        "memory.swap.max": "0",
        "pids.max": "9",
    }.items():
        (directory / name).write_text(text + "\n")
    (directory / "io.max").write_text("8:0 rbps=100 wbps=max riops=max wiops=5\n")
    group = v2.Cgroup(str(directory), "/x/y")
    assert group.effective() == Quotas(
        cpus=0.5,
        cpu_weight=100,
        memory_bytes=MIB,
        swap_bytes=0,
        pids=9,
        io=(IoQuota(device="8:0", read_bps=100, write_iops=5),),
    )
    group.close()


def test_a_refused_limit_names_file_value_and_remedy(directory: Path) -> None:
    """A controller that was not handed on has no file: the error says so."""
    (directory / "memory.max").unlink()
    group = v2.Cgroup(str(directory), "/x/y")
    with pytest.raises(HostError, match=rf"cannot set memory.max=1048576 in {directory}: No such file.*dayfly doctor"):
        group.apply(Quotas(memory_bytes=MIB))
    group.close()


def test_missing_swap_accounting_is_not_an_error(directory: Path) -> None:
    """Without stated swap a memory limit is still set; the hierarchy says that swap is lacking."""
    (directory / "memory.swap.max").unlink()
    group = v2.Cgroup(str(directory), "/x/y", has_swap=False)
    group.apply(Quotas(memory_bytes=MIB))
    assert (directory / "memory.max").read_text().startswith("1048576")
    group.close()


@pytest.fixture
def unified(needs_root: None, lacks: Callable[[str], None]) -> str:
    """The mount point of the real tree."""
    found = [each.path for each in mounts.cgroup_mounts(mounts.read_text("/proc/self/mountinfo")) if each.version == 2]
    return found[0] if found else lacks("a version 2 tree")


@pytest.mark.kernel
def test_kill_and_empty_on_the_real_tree(unified: str, token: str) -> None:
    """A process and its orphans die by one write; the group's end is an event, not a poll."""
    hierarchy = v2.Hierarchy(f"test{token[:8]}", unified, dict.fromkeys(v2.CONTROLLERS, "not asked for"))
    group = hierarchy.create(token)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        tasks.join(group.joins)
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(writer, b"!")
        signal.pause()
        os._exit(1)
    assert os.read(reader, 1) == b"!"
    assert os.read(reader, 1) == b"!"
    assert not group.is_empty()
    assert not group.wait_empty(time.monotonic())
    assert group.kill()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert group.is_empty()
    assert group.discard()
    assert group.discard()
    assert hierarchy.existing() == []
    os.rmdir(hierarchy.directory)
    os.close(reader)
    os.close(writer)


@pytest.fixture
def base(unified: str, token: str) -> Iterator[Path]:
    """A group of the test's own with every controller, as systemd delegates one."""
    offered = (Path(unified) / "cgroup.subtree_control").read_text().split()
    if not set(v2.CONTROLLERS) <= set(offered):
        pytest.skip("the version 2 tree of this host hands no controllers on")
    base = Path(unified) / f"test{token}"
    base.mkdir()
    yield base
    left = [str(base / delegation.LEAF), str(base)]
    assert tasks.wait_until(lambda: controlfile.remove_directories(left), time.monotonic() + 5.0)


@pytest.mark.kernel
def test_a_delegated_group_with_processes_in_it_hands_everything_on(
    base: Path, start: Callable[[Callable[[], object]], int]
) -> None:
    """They move into a leaf, at whatever controller the kernel begins to refuse."""
    pid = start(lambda: (base / "cgroup.procs").write_text("0"))
    assert delegation.hand_on(str(base), v2.CONTROLLERS) == {}
    assert set((base / "cgroup.subtree_control").read_text().split()) == set(v2.CONTROLLERS)
    assert (base / delegation.LEAF / "cgroup.procs").read_text().split() == [str(pid)]
