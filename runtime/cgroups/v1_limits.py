"""A job's limits as the files of version 1, one function per controller."""

from dayfly.runtime.shape import IoQuota, Quotas

FRESH = {
    "cpu.cfs_period_us": "100000",
    "cpu.cfs_quota_us": "-1",
    "cpu.cfs_burst_us": "0",
    "cpu.shares": "1024",
    "memory.limit_in_bytes": "-1",
    "memory.memsw.limit_in_bytes": "-1",
    "pids.max": "max",
}


NO_IO_LIMIT = "0"


def settings(quotas: Quotas) -> dict[str, str]:
    """Every file that holds a limit, with its value; for io the file and the device, separated by a space."""
    return cpu(quotas) | memory(quotas) | pids(quotas) | io(quotas)


def cpu(quotas: Quotas) -> dict[str, str]:
    """`cpu.shares` counts in 1024ths what the weight (version 2's) counts in hundredths."""
    period, quota = period_and_quota(quotas.cpus)
    return {
        "cpu.cfs_period_us": str(period),
        "cpu.cfs_quota_us": "-1" if quota is None else str(quota),
        "cpu.cfs_burst_us": str(quotas.cpu_burst_us or 0),
        "cpu.shares": str(min(max((quotas.cpu_weight or 100) * 1024 // 100, 2), 262144)),
    }


def period_and_quota(cpus: float | None) -> tuple[int, int | None]:
    """In microseconds; a longer period where the quota would fall below the kernel's least, 1 ms."""
    if cpus is None:
        return 100_000, None
    period = 100_000 if cpus >= 0.01 else 1_000_000
    return period, max(1_000, round(cpus * period))


def memory(quotas: Quotas) -> dict[str, str]:
    """`memsw` is memory and swap together; a limit without stated swap means no swap, so both are the same."""
    limit = quotas.memory_bytes
    both = None if limit is None else limit + (quotas.swap_bytes or 0)
    return {
        "memory.limit_in_bytes": "-1" if limit is None else str(limit),
        "memory.memsw.limit_in_bytes": "-1" if both is None else str(both),
    }


def pids(quotas: Quotas) -> dict[str, str]:
    return {"pids.max": "max" if quotas.pids is None else str(quotas.pids)}


def io(quotas: Quotas) -> dict[str, str]:
    """A file per direction and unit, a line per device; 0 is no limit."""
    return {f"{name} {each.device}": str(value or 0) for each in quotas.io for name, value in _io_files(each)}


def _io_files(quota: IoQuota) -> tuple[tuple[str, int | None], ...]:
    return (
        ("blkio.throttle.read_bps_device", quota.read_bps),
        ("blkio.throttle.write_bps_device", quota.write_bps),
        ("blkio.throttle.read_iops_device", quota.read_iops),
        ("blkio.throttle.write_iops_device", quota.write_iops),
    )
