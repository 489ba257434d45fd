"""What this host offers to jobs and what of it is free. Never overcommitted: what is taken was free before."""

import os
import shutil

from dayfly.jobs.demand import Capacity
from dayfly.worker.settings import JobDefaults, WorkerSettings

_MIB = 1 << 20
_MEMORY_PART = 0.9
_DISK_PART = 0.9


class Ledger:
    """The host's offer, its slots, and what running jobs hold of both, by job id."""

    def __init__(self, offer: Capacity, slots: int, share: Capacity | None = None) -> None:
        self.offer = offer
        self.slots = slots
        self.share = share or offer.share(slots)
        """What a job takes that does not state it."""
        self._free = offer
        self._held: dict[str, Capacity] = {}

    @property
    def free(self) -> Capacity | None:
        """What a further job may take; None when every slot is taken."""
        return None if len(self._held) >= self.slots else self._free

    @property
    def is_idle(self) -> bool:
        return not self._held

    def take(self, job_id: str, need: Capacity) -> None:
        """Hold `need` for a job. An adopted job may exceed what a smaller offer has left: then nothing is free."""
        self._held[job_id] = need
        self._free = self._free - need

    def give_back(self, job_id: str) -> None:
        """Free what a job held; fine when it holds nothing."""
        need = self._held.pop(job_id, None)
        if need is not None:
            self._free = self._free + need


def open_ledger(settings: WorkerSettings) -> Ledger:
    """What the operator offers, and of what they left open what the host has."""
    cpus = settings.cpus if settings.cpus is not None else float(len(os.sched_getaffinity(0)))
    slots = settings.slots or max(int(cpus), 1)
    memory = settings.memory_bytes if settings.memory_bytes is not None else _host_memory_bytes()
    disk = settings.disk_bytes if settings.disk_bytes is not None else _host_disk_bytes(settings, slots)
    offer = Capacity(int(cpus * 1000), memory // _MIB, disk // _MIB)
    return Ledger(offer, slots, _share(settings.defaults, offer, slots))


def _share(defaults: JobDefaults, offer: Capacity, slots: int) -> Capacity:
    """An equal share, but for what the operator has set; never more than the whole host, or no such job could start."""
    equal = offer.share(slots)
    return Capacity(
        min(round(defaults.cpus * 1000), offer.cpus_milli) if defaults.cpus else equal.cpus_milli,
        min(defaults.memory_bytes // _MIB, offer.memory_mib) if defaults.memory_bytes else equal.memory_mib,
        min(defaults.disk_bytes // _MIB, offer.disk_mib) if defaults.disk_bytes else equal.disk_mib,
    )


def _host_memory_bytes() -> int:
    """Nine tenths of what there is: the rest is the kernel's, Redis's and our own."""
    with open("/proc/meminfo", encoding="ascii") as file:
        total_kib = next(int(line.split()[1]) for line in file if line.startswith("MemTotal:"))
    return int(total_kib * 1024 * _MEMORY_PART)


def _host_disk_bytes(settings: WorkerSettings, slots: int) -> int:
    """Nine tenths of what is free, each slot's share cut to one significant bit: a disk's template is made once a size,
    and what is free differs at every start."""
    share_mib = max(int(shutil.disk_usage(settings.home).free * _DISK_PART) // slots // _MIB, 1)
    return (1 << (share_mib.bit_length() - 1)) * _MIB * slots
