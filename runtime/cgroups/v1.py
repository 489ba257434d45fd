"""Control groups of version 1: one tree per controller, a directory of the job in each.

Two things are special here. A task joins by writing 0 to `tasks`, never to `cgroup.procs`: that one takes a lock over
all thread groups of the host (95th percentile 9.7 ms against 0.37). And nothing can be waited for or killed by one
call: a group's end is asked for, and its tasks are killed one by one until none is listed.
"""

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups import controlfile, devices, kmsg, tasks
from dayfly.runtime.cgroups import v1_limits as limits
from dayfly.runtime.cgroups.readings import Oom, Pressure, Sample, Usage
from dayfly.runtime.cgroups.settings import Settings, close_all
from dayfly.runtime.shape import Device, IoQuota, Quotas

CONTROLLERS = ("cpu", "cpuacct", "memory", "pids", "blkio")

_NANO = 1_000_000_000
_UNLIMITED = 1 << 62  # "no limit" reads as the largest number of whole pages
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Hierarchy:
    """The directories `dayfly-<tag>`, one in each mounted tree, in which every job has its own."""

    version = 1

    def __init__(self, tag: str, mounts: Mapping[str, str]) -> None:
        """`mounts`: controller to mount point. Makes the parents that are not there yet."""
        self.name = f"dayfly-{tag}"
        self._parents = {name: os.path.join(mounts[name], self.name) for name in CONTROLLERS if name in mounts}
        self._devices = os.path.join(mounts["devices"], self.name) if "devices" in mounts else None
        """Made only when a job asks for devices: each tree costs every job a tenth of a millisecond."""
        try:
            for parent in dict.fromkeys(self._parents.values()):
                controlfile.make_directory(parent, exist_ok=True)
        except HostError:
            self.leave()
            raise
        self.lacking = self._find_lacking()
        """What cannot be limited or read here, and why: controller to reason; also `swap`, `cpu_burst`, `devices`."""

    def describe(self) -> dict[str, object]:
        """For `dayfly doctor`."""
        return {"version": 1, "directories": dict(self._parents), "lacking": dict(self.lacking)}

    def create(self, token: str, *, with_devices: bool = False) -> "Cgroup":
        """A new group. Raises `HostError`, also when it exists: a group is never used twice.

        `with_devices`: one that `restrict` can be asked of.
        """
        parents = self._parents | self._devices_parent() if with_devices else self._parents
        directories = {name: os.path.join(parent, token) for name, parent in parents.items()}
        made: list[str] = []
        try:
            for directory in dict.fromkeys(directories.values()):
                controlfile.make_directory(directory)
                made.append(directory)
            return Cgroup(directories, f"/{self.name}/{token}", has_swap="swap" not in self.lacking)
        except BaseException:
            for directory in made:
                with suppress(OSError):  # the first failure is the one to tell
                    os.rmdir(directory)
            raise

    def existing(self) -> list[str]:
        """The tokens that have a directory in any tree."""
        found: set[str] = set()
        for parent in self._all_parents():
            found.update(controlfile.subdirectories(parent))
        return sorted(found)

    def remove(self, token: str, within_seconds: float = 2.0) -> bool:
        """Kill and remove what is left of a group, and of those within. True when nothing is left; safe for one that
        never was."""
        parents = {**self._parents, **({} if self._devices is None else {"devices": self._devices})}
        directories = {name: os.path.join(parent, token) for name, parent in parents.items()}
        present = {name: path for name, path in directories.items() if os.path.isdir(path)}
        for name in {each for path in present.values() for each in controlfile.subdirectories(path)}:
            self.remove(f"{token}/{name}", within_seconds)
        return Cgroup(present, f"/{self.name}/{token}").discard(within_seconds)

    def leave(self) -> None:
        """Take our own directories away, as far as no group is left in them."""
        for parent in self._all_parents():
            with suppress(OSError):  # a job goes on in it, or it is gone
                os.rmdir(parent)

    def _all_parents(self) -> list[str]:
        """Every directory `dayfly-<tag>` that is there."""
        devices_parent = [self._devices] if self._devices is not None and os.path.isdir(self._devices) else []
        return [*dict.fromkeys(self._parents.values()), *devices_parent]

    def _devices_parent(self) -> dict[str, str]:
        if self._devices is None:
            raise controlfile.lacking("devices")
        controlfile.make_directory(self._devices, exist_ok=True)
        return {"devices": self._devices}

    def _find_lacking(self) -> dict[str, str]:
        lacking = {
            name: f"no cgroup mount has the controller {name}" for name in CONTROLLERS if name not in self._parents
        }
        for name, controller, file in (
            ("swap", "memory", "memory.memsw.limit_in_bytes"),
            ("cpu_burst", "cpu", "cpu.cfs_burst_us"),
        ):
            if controller not in lacking and not os.path.exists(os.path.join(self._parents[controller], file)):
                lacking[name] = f"this kernel has no {file}" + ("; boot with swapaccount=1" if name == "swap" else "")
        if self._devices is None:
            lacking["devices"] = devices.NO_CONTROLLER
        lacking["pressure"] = "version 1 has no pressure files"
        return lacking


class Cgroup:
    """One job's group; its descriptors stay open until it is discarded."""

    def __init__(self, directories: Mapping[str, str], path: str, *, has_swap: bool = True) -> None:
        """`directories`: controller to directory. `path` is below the root of each tree, as the kernel's log has it."""
        self.path = path
        self._directories = directories
        self._has_swap = has_swap
        fds = {directory: os.open(directory, _DIRECTORY) for directory in dict.fromkeys(directories.values())}
        self._fds = {name: fds[directory] for name, directory in directories.items()}
        # Opened by us, since the kernel judges a join by who opened the file, not by who writes to it.
        self.joins = [os.open("tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=fd) for fd in fds.values()]
        """What `tasks.join` needs, also from inside other namespaces."""
        self._open = [*fds.values(), *self.joins]
        self._samples = [
            self._open_counter("cpuacct", "cpuacct.usage"),
            self._open_counter("memory", "memory.usage_in_bytes"),
        ]
        self._kmsg = kmsg.open_at_end()
        if self._kmsg is not None:
            self._open.append(self._kmsg)
        self._settings = Settings(limits.FRESH, limits.NO_IO_LIMIT, self._place)

    def restrict(self, only: Sequence[Device]) -> None:
        """Let it use these devices and no others. Raises `HostError`."""
        devices.restrict_v1(*self._place("devices"), only)

    def narrow(self, only: Sequence[Device]) -> None:
        """Take what somebody has added to its list out of it again. Raises `HostError`."""
        devices.narrow_v1(*self._place("devices"), only)

    def divide(self, pid: int) -> None:
        """Be ready to have groups within; the job's own process `pid` may stay where it is."""

    def within(self, name: str) -> "Cgroup":
        """A new group within this one, for a service. Raises `HostError`.

        It has no part in blkio, where groups within one another share no limit: its processes join the job's own.
        """
        directories = {
            controller: os.path.join(directory, name)
            for controller, directory in self._directories.items()
            if controller != "blkio"
        }
        for directory in dict.fromkeys(directories.values()):
            controlfile.make_directory(directory)
        group = Cgroup(directories, f"{self.path}/{name}", has_swap=self._has_swap)
        if "blkio" in self._fds:
            group._also_join(self._fds["blkio"])
        return group

    def apply(self, quotas: Quotas) -> None:
        """Write the limits that differ from those applied before. Raises `HostError` with file and value."""
        wanted = limits.settings(quotas)
        if not self._has_swap and quotas.swap_bytes is None:
            del wanted["memory.memsw.limit_in_bytes"]
        self._settings.apply(wanted)

    def effective(self) -> Quotas:
        """The limits as the kernel has them."""
        period = self._number("cpu", "cpu.cfs_period_us")
        quota = self._number("cpu", "cpu.cfs_quota_us")
        shares = self._number("cpu", "cpu.shares")
        limit = _limit(self._number("memory", "memory.limit_in_bytes"))
        both = _limit(self._number("memory", "memory.memsw.limit_in_bytes"))
        return Quotas(
            cpus=quota / period if period and quota and quota > 0 else None,
            cpu_burst_us=self._number("cpu", "cpu.cfs_burst_us") or None,
            cpu_weight=None if shares is None else round(shares * 100 / 1024),
            memory_bytes=limit,
            swap_bytes=None if limit is None or both is None else both - limit,
            pids=self._number("pids", "pids.max"),
            io=self._effective_io(),
        )

    def usage(self) -> Usage:
        """Without io: version 1 counts neither what is written back later nor what goes through a loop device.

        The rusage of the container's init, which reaps every process of the job, knows (`ru_inblock`, `ru_oublock`).
        """
        throttled = self._keyed("cpu", "cpu.stat").get("throttled_time")
        user, system = self.cpu_seconds()
        return Usage(
            cpu_user_seconds=user,
            cpu_system_seconds=system,
            cpu_throttled_seconds=controlfile.seconds(throttled, _NANO),
            memory_peak_bytes=self._number("memory", "memory.max_usage_in_bytes"),
            pids_peak=self._number("pids", "pids.peak"),
        )

    def cpu_seconds(self) -> tuple[float | None, float | None]:
        """User and system: the exact total, divided as the clock's ticks saw it.

        Ticks see nothing of a job of a few milliseconds.
        """
        total = self._number("cpuacct", "cpuacct.usage")
        if total is None:
            return None, None
        user = self._number("cpuacct", "cpuacct.usage_user") or 0
        ticks = user + (self._number("cpuacct", "cpuacct.usage_sys") or 0)
        share = user / ticks if ticks else 1.0
        return total * share / _NANO, total * (1 - share) / _NANO

    def current(self) -> Sample:
        """Two reads from files that stay open."""
        cpu_ns, memory_bytes = (None if fd is None else int(os.pread(fd, 32, 0)) for fd in self._samples)
        return Sample(controlfile.seconds(cpu_ns, _NANO), memory_bytes)

    def oom(self) -> Oom:
        events = self._keyed("memory", "memory.oom_control").get("oom_kill", 0)
        if not events or self._kmsg is None:
            return Oom(events)
        return Oom(events, kmsg.victims(self._kmsg, self.path))

    def pressure(self) -> Pressure | None:
        """Version 1 has none."""
        return None

    def is_empty(self) -> bool:
        return not self._pids()

    def wait_empty(self, deadline: float) -> bool:
        """Wait until the last task has left, at most until `deadline` (time.monotonic). No event tells of it here."""
        return tasks.wait_until(self.is_empty, deadline)

    def kill(self, within_seconds: float = 2.0) -> bool:
        """SIGKILL every task until none is left; False when some still are at the end of the time."""
        return tasks.kill_all(self._pids, time.monotonic() + within_seconds)

    def discard(self, within_seconds: float = 2.0) -> bool:
        """Kill what is left, remove the group and close everything. Safe from any state and more than once.

        True when nothing is left. A group whose last task is just dying is busy for a moment, so it is tried again.
        """
        deadline = time.monotonic() + within_seconds
        try:
            if not self.is_empty():
                tasks.kill_all(self._pids, deadline)
            left = list(dict.fromkeys(self._directories.values()))
            return tasks.wait_until(lambda: controlfile.remove_directories(left), deadline)
        finally:
            self.close()

    def close(self) -> None:
        """Close the descriptors; the group stays."""
        self._fds = {}
        close_all(self._open)

    def _also_join(self, directory_fd: int) -> None:
        fd = os.open("tasks", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory_fd)
        self.joins.append(fd)
        self._open.append(fd)

    def _place(self, controller: str) -> tuple[int, str]:
        if controller not in self._fds:
            raise controlfile.lacking(controller)
        return self._fds[controller], self._directories[controller]

    def _open_counter(self, controller: str, name: str) -> int | None:
        if controller not in self._fds:
            return None
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fds[controller])
        self._open.append(fd)
        return fd

    def _number(self, controller: str, name: str) -> int | None:
        fd = self._fds.get(controller)
        return None if fd is None else controlfile.read_number(fd, name)

    def _keyed(self, controller: str, name: str) -> dict[str, int]:
        fd = self._fds.get(controller)
        return {} if fd is None else controlfile.read_keyed(fd, name)

    def _text(self, controller: str, name: str) -> str:
        fd = self._fds.get(controller)
        return "" if fd is None else controlfile.read(fd, name) or ""

    def _pids(self) -> list[int]:
        """Tasks of every tree: one that joined half of them before it died is found too."""
        found: set[int] = set()
        for fd in dict.fromkeys(self._fds.values()):
            found.update(map(int, (controlfile.read(fd, "tasks") or "").split()))
        return sorted(found)

    def _effective_io(self) -> tuple[IoQuota, ...]:
        found: dict[str, dict[str, int]] = {}
        for field in ("read_bps", "write_bps", "read_iops", "write_iops"):
            for line in self._text("blkio", f"blkio.throttle.{field}_device").splitlines():
                device, value = line.split()
                found.setdefault(device, {})[field] = int(value)
        return tuple(IoQuota(device=device, **limits) for device, limits in sorted(found.items()))


def _limit(value: int | None) -> int | None:
    return None if value is None or value >= _UNLIMITED else value
