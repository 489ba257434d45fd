"""Control groups of version 2: one tree, one directory of the job in it.

Where that directory may lie is decided in `delegation.py`. A group that hands controllers to its children may hold no
processes of its own, so nothing but the jobs' groups lives under `dayfly-<tag>`.
"""

import errno
import os
import select
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups import controlfile, devices, kmsg, tasks
from dayfly.runtime.cgroups import v2_limits as limits
from dayfly.runtime.cgroups.readings import Oom, Pressure, Sample, Usage
from dayfly.runtime.cgroups.settings import Settings, close_all
from dayfly.runtime.shape import Device, IoQuota, Quotas

CONTROLLERS = ("cpu", "memory", "pids", "io")

_LEAF = "_job"  # no service has a name like that
_MICRO = 1_000_000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Hierarchy:
    """The directory `dayfly-<tag>`, in which every job has its own."""

    version = 2

    def __init__(self, tag: str, base: str, lacking: Mapping[str, str]) -> None:
        """`base`: a group that hands its controllers on to us; `lacking`: those that it does not, and why."""
        self.name = f"dayfly-{tag}"
        self.directory = os.path.join(base, self.name)
        controlfile.make_directory(self.directory, exist_ok=True)
        self.lacking = dict(lacking)
        """What cannot be limited or read here, and why: controller to reason; also `swap`, `cpu_burst`, `pressure`,
        `devices`."""
        self._hand_on()

    def describe(self) -> dict[str, object]:
        """For `dayfly doctor`."""
        return {"version": 2, "directories": {"": self.directory}, "lacking": dict(self.lacking)}

    def create(self, token: str, *, with_devices: bool = False) -> "Cgroup":
        """A new group. Raises `HostError`, also when it exists: a group is never used twice.

        `with_devices`: one that `restrict` can be asked of, which every group of version 2 is.
        """
        directory = os.path.join(self.directory, token)
        controlfile.make_directory(directory)
        try:
            return Cgroup(directory, f"/{self.name}/{token}", has_swap="swap" not in self.lacking)
        except BaseException:
            with suppress(OSError):  # the first failure is the one to tell
                os.rmdir(directory)
            raise

    def existing(self) -> list[str]:
        """The tokens that have a directory."""
        return sorted(controlfile.subdirectories(self.directory))

    def remove(self, token: str, within_seconds: float = 2.0) -> bool:
        """Kill and remove what is left of a group, and of those within. True when nothing is left; safe for one that
        never was."""
        directory = os.path.join(self.directory, token)
        if not os.path.isdir(directory):
            return True
        for name in controlfile.subdirectories(directory):
            self.remove(f"{token}/{name}", within_seconds)
        return Cgroup(directory, f"/{self.name}/{token}").discard(within_seconds)

    def leave(self) -> None:
        """Take our own directory away, if no group is left in it."""
        with suppress(OSError):  # a job goes on in it, or it is gone
            os.rmdir(self.directory)

    def _hand_on(self) -> None:
        fd = os.open(self.directory, _DIRECTORY)
        try:
            for name in CONTROLLERS:
                if name not in self.lacking:
                    controlfile.write(fd, self.directory, "cgroup.subtree_control", f"+{name}")
            self._find_lacking_files()
        finally:
            os.close(fd)

    def _find_lacking_files(self) -> None:
        """The group itself is not the root, so it has every file that its children will have."""
        for name, controller, file, remedy in (
            ("swap", "memory", "memory.swap.max", "; boot with swapaccount=1"),
            ("cpu_burst", "cpu", "cpu.max.burst", ""),
            ("pressure", "", "cpu.pressure", "; boot with psi=1"),
        ):
            if controller not in self.lacking and not os.path.exists(os.path.join(self.directory, file)):
                self.lacking[name] = f"this kernel has no {file}{remedy}"
        reason = devices.why_lacking_v2(self.directory)
        if reason is not None:
            self.lacking["devices"] = reason


class Cgroup:
    """One job's group; its descriptors stay open until it is discarded."""

    def __init__(self, directory: str, path: str, *, has_swap: bool = True) -> None:
        """`path` is the end of the group's path as the kernel's log has it."""
        self.path = path
        self._directory = directory
        self._leaf_fd: int | None = None
        self._has_swap = has_swap
        self._fd = os.open(directory, _DIRECTORY)
        self._open = [self._fd]
        self.joins = [self._keep("cgroup.procs", os.O_RDWR)]
        """What `tasks.join` needs, also from inside other namespaces."""
        self._events = self._keep("cgroup.events", os.O_RDONLY)
        self._kmsg = kmsg.open_at_end()
        if self._kmsg is not None:
            self._open.append(self._kmsg)
        self._settings = Settings(limits.FRESH, limits.NO_IO_LIMIT, lambda controller: (self._fd, directory))

    def restrict(self, only: Sequence[Device]) -> None:
        """Let it use these devices and no others. Raises `HostError`."""
        devices.restrict_v2(self._fd, self._directory, only)

    def divide(self, pid: int) -> None:
        """Be ready to have groups within, as one with processes may not: the job's own, `pid`, moves into a leaf.

        Limits and readings stay those of the whole. Raises `HostError`.
        """
        leaf = os.path.join(self._directory, _LEAF)
        controlfile.make_directory(leaf)
        self._leaf_fd = os.open(leaf, _DIRECTORY)
        self._open.append(self._leaf_fd)
        controlfile.write(self._leaf_fd, leaf, "cgroup.procs", str(pid))
        offered = (controlfile.read(self._fd, "cgroup.controllers") or "").split()
        wanted = " ".join(f"+{name}" for name in CONTROLLERS if name in offered)
        controlfile.write(self._fd, self._directory, "cgroup.subtree_control", wanted)

    def within(self, name: str) -> "Cgroup":
        """A new group within this one, which was divided, for a service. Raises `HostError`."""
        directory = os.path.join(self._directory, name)
        controlfile.make_directory(directory)
        return Cgroup(directory, f"{self.path}/{name}", has_swap=self._has_swap)

    def apply(self, quotas: Quotas) -> None:
        """Write the limits that differ from those applied before. Raises `HostError` with file and value."""
        wanted = limits.settings(quotas)
        if not self._has_swap and quotas.swap_bytes is None:
            del wanted["memory.swap.max"]
        self._settings.apply(wanted)

    def effective(self) -> Quotas:
        """The limits as the kernel has them."""
        quota, _, period = (controlfile.read(self._fd, "cpu.max") or "max 100000").strip().partition(" ")
        return Quotas(
            cpus=None if quota == "max" else int(quota) / int(period),
            cpu_burst_us=self._number("cpu.max.burst") or None,
            cpu_weight=self._number("cpu.weight"),
            memory_bytes=self._number("memory.max"),
            swap_bytes=self._number("memory.swap.max"),
            pids=self._number("pids.max"),
            io=self._effective_io(),
        )

    def usage(self) -> Usage:
        throttled = self._keyed("cpu.stat").get("throttled_usec")
        user, system = self.cpu_seconds()
        read, written = self._io_bytes()
        return Usage(
            cpu_user_seconds=user,
            cpu_system_seconds=system,
            cpu_throttled_seconds=controlfile.seconds(throttled, _MICRO),
            memory_peak_bytes=self._number("memory.peak"),
            io_read_bytes=read,
            io_written_bytes=written,
            pids_peak=self._number("pids.peak"),
        )

    def cpu_seconds(self) -> tuple[float | None, float | None]:
        """User and system."""
        cpu = self._keyed("cpu.stat")
        return controlfile.seconds(cpu.get("user_usec"), _MICRO), controlfile.seconds(cpu.get("system_usec"), _MICRO)

    def current(self) -> Sample:
        return Sample(
            controlfile.seconds(self._keyed("cpu.stat").get("usage_usec"), _MICRO), self._number("memory.current")
        )

    def oom(self) -> Oom:
        """Without what was killed in groups within."""
        fd, path = (self._fd, self.path) if self._leaf_fd is None else (self._leaf_fd, f"{self.path}/{_LEAF}")
        events = controlfile.read_keyed(fd, "memory.events").get("oom_kill", 0)
        if not events or self._kmsg is None:
            return Oom(events)
        return Oom(events, kmsg.victims(self._kmsg, path))

    def pressure(self) -> Pressure | None:
        """None where the kernel does not count (psi=0)."""
        stalled = [self._stalled(f"{name}.pressure") for name in ("cpu", "memory", "io")]
        return None if stalled == [None, None, None] else Pressure(*stalled)

    def is_empty(self) -> bool:
        try:
            return b"populated 0" in os.pread(self._events, 128, 0)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return True  # an OCI runtime that failed has removed it

    def wait_empty(self, deadline: float) -> bool:
        """Wait until the last process has left, at most until `deadline` (time.monotonic)."""
        poll = select.poll()
        poll.register(self._events, select.POLLPRI)  # cgroup.events changed since it was last read
        while not self.is_empty():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(left * 1000)
        return True

    def kill(self, within_seconds: float = 2.0) -> bool:
        """SIGKILL every process of the group, forks under way included; False when some outlive the time."""
        deadline = time.monotonic() + within_seconds
        try:
            controlfile.write(self._fd, self._directory, "cgroup.kill", "1")
        except HostError as error:
            if error.errno != errno.ENOENT:  # before Linux 5.14
                raise
            return tasks.kill_all(self._pids, deadline)
        return self.wait_empty(deadline)

    def discard(self, within_seconds: float = 2.0) -> bool:
        """Kill what is left, remove the group and close everything. Safe from any state and more than once.

        True when nothing is left. A group whose last process is just dying is busy for a moment, so it is tried again.
        """
        if not self._open:
            return not os.path.isdir(self._directory)
        deadline = time.monotonic() + within_seconds
        try:
            if not self.is_empty():
                self.kill(within_seconds)
            left = [self._directory] if self._leaf_fd is None else [f"{self._directory}/{_LEAF}", self._directory]
            return tasks.wait_until(lambda: controlfile.remove_directories(left), deadline)
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptors; the group stays."""
        close_all(self._open)

    def _keep(self, name: str, flags: int) -> int:
        fd = os.open(name, flags | os.O_CLOEXEC, dir_fd=self._fd)
        self._open.append(fd)
        return fd

    def _number(self, name: str) -> int | None:
        return controlfile.read_number(self._fd, name)

    def _keyed(self, name: str) -> dict[str, int]:
        return controlfile.read_keyed(self._fd, name)

    def _pids(self) -> list[int]:
        return [int(pid) for pid in (controlfile.read(self._fd, "cgroup.procs") or "").split()]

    def _stalled(self, name: str) -> float | None:
        """From `some avg10=0.00 avg60=0.00 avg300=0.00 total=12345` (microseconds)."""
        for line in (controlfile.read(self._fd, name) or "").splitlines():
            if line.startswith("some "):
                return int(line.rpartition("total=")[2]) / _MICRO
        return None

    def _io_bytes(self) -> tuple[int | None, int | None]:
        """From lines `8:0 rbytes=1 wbytes=2 …`. What the job's own disk (a loop device, 7:N) passes down may be charged
        to the job a second time below, or to nobody: so the larger of both sums, never their sum."""
        text = controlfile.read(self._fd, "io.stat")
        if text is None:
            return None, None
        loops, others = {"rbytes": 0, "wbytes": 0}, {"rbytes": 0, "wbytes": 0}
        for line in text.splitlines():
            device, *fields = line.split()
            totals = loops if device.startswith("7:") else others
            for name, _, value in (field.partition("=") for field in fields):
                if name in totals:
                    totals[name] += int(value)
        return max(loops["rbytes"], others["rbytes"]), max(loops["wbytes"], others["wbytes"])

    def _effective_io(self) -> tuple[IoQuota, ...]:
        names = {"rbps": "read_bps", "wbps": "write_bps", "riops": "read_iops", "wiops": "write_iops"}
        found = []
        for line in (controlfile.read(self._fd, "io.max") or "").splitlines():
            device, *fields = line.split()
            limits = {
                names[name]: int(value) for name, _, value in (f.partition("=") for f in fields) if value != "max"
            }
            found.append(IoQuota(device=device, **limits))
        return tuple(found)
