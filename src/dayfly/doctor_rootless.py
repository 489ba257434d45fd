"""What an ordinary user's worker has in place of root's rights, and what it has not."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dayfly import doctor_kernel
from dayfly.doctor_check import Check, missing, ok, warning
from dayfly.jobs.errors import DayflyError
from dayfly.runtime import syscalls, user_namespace

_HIDDEN_PROC = "this container hides parts of /proc; run outside of it, or with --security-opt systempaths=unconfined"
_ELSEWHERE = "set DAYFLY_HOME to a directory on ext4, xfs or btrfs"


def rights() -> Check:
    """Enters the user namespace that a worker would be in: every later check is made there."""
    found = user_namespace.find_subordinates()
    try:
        user_namespace.enter()
    except DayflyError as error:
        return missing("rights", f"uid {os.geteuid()}: {error.message}", error.remedy or "")
    if isinstance(found, str):
        return warning("rights", "not root, and no subordinate ids: a job has one id, that of this user", found)
    return ok("rights", "not root; jobs have the subordinate ids of this user")


def examine(home: Path) -> Iterator[Check]:
    """What only a worker without root's rights need ask."""
    yield _proc()
    yield _home(next(path for path in (home, *home.parents) if path.exists()))


def _proc() -> Check:
    """Who sees only parts of /proc may not mount a whole one (mount_too_revealing() in fs/namespace.c)."""
    fault = doctor_kernel.in_child(_try_proc)
    return ok("proc", "can be mounted") if fault is None else missing("proc", f"mount: {fault}", _HIDDEN_PROC)


def _try_proc() -> None:
    syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS)
    fault = doctor_kernel.in_child(lambda: syscalls.mount("proc", "/proc", "proc"))
    if fault is not None:
        raise DayflyError(fault)


def _home(there: Path) -> Check:
    """Overlay's upper lies there, with marks that anybody may set, and what jobs make is executed from there."""
    if os.statvfs(there).f_flag & os.ST_NOEXEC:
        return warning("home", f"{there} is mounted noexec: a job cannot execute what it makes", _ELSEWHERE)
    try:
        with tempfile.TemporaryDirectory(prefix="dayfly-doctor-", dir=there) as scratch:
            fault = doctor_kernel.in_child(lambda: _try_overlay(scratch))
    except OSError as error:
        fault = error.strerror
    if fault is not None:
        return missing("home", f"overlay in {there}: {fault}", _ELSEWHERE)
    return ok("home", f"{there} can hold what jobs write")


def _try_overlay(scratch: str) -> None:
    syscalls.unshare(syscalls.CLONE_NEWNS)
    doctor_kernel.overlay_in(scratch, "userxattr")
    os.mkdir(f"{scratch}/merged/made")
    os.rmdir(f"{scratch}/merged/of_lower")  # leaves a whiteout
    os.mkdir(f"{scratch}/merged/of_lower")  # and now a mark
