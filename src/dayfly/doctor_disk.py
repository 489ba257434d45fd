"""Whether a job's disk can be limited, and if not, whether a job can have one at all."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dayfly import doctor_kernel
from dayfly.doctor_check import Check, missing, ok, warning
from dayfly.jobs.errors import DayflyError
from dayfly.runtime.idrange import own_id_map

_NEEDED = "jobs that state limits.disk are refused, others run without a limit"


def examine(home: Path) -> Iterator[Check]:
    """Tried with the smallest disk, on the file system that holds `home`, whether or not that is there yet."""
    there = next(path for path in (home, *home.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix="dayfly-doctor-", dir=there) as scratch:
            fault = _fault(scratch)
            yield _limits(fault)
            if fault is not None and own_id_map() is None:
                yield _without_limit(there, scratch)
    except OSError as error:
        yield missing("disk limits", f"{there}: {error.strerror}", "run as root, or set DAYFLY_HOME elsewhere")


def _fault(scratch: str) -> DayflyError | None:
    from dayfly.runtime.directory_disk import why_unlimited

    try:
        return why_unlimited(scratch, f"doctor-{os.getpid()}")
    except DayflyError as error:
        return error


def _limits(fault: DayflyError | None) -> Check:
    if fault is None:
        return ok("disk limits", "an ext4 of a job's own can be made, attached and mounted")
    if own_id_map() is not None:
        return warning("disk limits", "an ext4 of a job's own can be mounted by root alone", _NEEDED)
    return missing("disk limits", fault.message, f"{fault.remedy}: {_NEEDED}" if fault.remedy else _NEEDED)


def _without_limit(there: Path, scratch: str) -> Check:
    fault = doctor_kernel.fault_of_idmap(scratch)
    if fault is None:
        return warning("disk without limit", f"jobs run in directories below {there}", "a job may fill the host's disk")
    return missing("disk without limit", f"{there}: {fault}", "have DAYFLY_HOME on ext4, xfs or btrfs")
