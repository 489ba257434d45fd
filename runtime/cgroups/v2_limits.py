"""A job's limits as the files of version 2, one function per controller."""

from dayfly.runtime.cgroups.v1_limits import period_and_quota
from dayfly.runtime.shape import Quotas

FRESH = {
    "cpu.max": "max 100000",
    "cpu.max.burst": "0",
    "cpu.weight": "100",
    "memory.max": "max",
    "memory.swap.max": "max",
    "pids.max": "max",
}
NO_IO_LIMIT = "rbps=max wbps=max riops=max wiops=max"


def settings(quotas: Quotas) -> dict[str, str]:
    """Every file that holds a limit, with its value; for io the file and the device, separated by a space."""
    return cpu(quotas) | memory(quotas) | pids(quotas) | io(quotas)


def cpu(quotas: Quotas) -> dict[str, str]:
    period, quota = period_and_quota(quotas.cpus)
    return {
        "cpu.max": f"{'max' if quota is None else quota} {period}",
        "cpu.max.burst": str(quotas.cpu_burst_us or 0),
        "cpu.weight": str(quotas.cpu_weight or 100),
    }


def memory(quotas: Quotas) -> dict[str, str]:
    """A limit without stated swap means no swap."""
    swap = quotas.swap_bytes if quotas.memory_bytes is None else quotas.swap_bytes or 0
    return {"memory.max": _or_max(quotas.memory_bytes), "memory.swap.max": _or_max(swap)}


def pids(quotas: Quotas) -> dict[str, str]:
    return {"pids.max": _or_max(quotas.pids)}


def io(quotas: Quotas) -> dict[str, str]:
    return {
        f"io.max {each.device}": f"rbps={_rate(each.read_bps)} wbps={_rate(each.write_bps)} "
        f"riops={_rate(each.read_iops)} wiops={_rate(each.write_iops)}"
        for each in quotas.io
    }


def _rate(value: int | None) -> str:
    """The kernel takes no 1, which version 1 does (EINVAL, tg_set_limit in block/blk-throttle.c)."""
    return _or_max(value if value is None else max(value, 2))


def _or_max(value: int | None) -> str:
    return "max" if value is None else str(value)
