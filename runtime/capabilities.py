"""Capabilities of a job: those of `jobs/privileges.py`, and nothing in any other set.

The order matters and is capabilities(7)'s: the bounding set is cut first, since that needs CAP_SETPCAP; then the user
is set; then permitted and effective are lowered. Inheritable becomes empty, so that a file with inheritable
capabilities gains nothing (CVE-2022-24769), and ambient with it, which is never more than inheritable.
"""

import errno
import os
from collections.abc import Iterable

from dayfly.jobs.privileges import CAPABILITIES, DEFAULT_CAPABILITIES
from dayfly.runtime import syscalls

NUMBERS = {name: number for number, name in enumerate(CAPABILITIES)}
"""The kernel's capabilities without `CAP_`, numbered as in linux/capability.h."""


def mask(names: Iterable[str]) -> int:
    """The names as a bit mask, the form in which /proc/PID/status shows a set."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


DEFAULT_MASK = mask(DEFAULT_CAPABILITIES)


def drop_bounding(kept: int = DEFAULT_MASK) -> None:
    """Take from the bounding set what `kept` does not have. Needs CAP_SETPCAP, so it comes before the user changes.

    It lowers nothing that the thread holds, so it can be done ahead of the job.
    """
    for number in range(64):
        if kept >> number & 1:
            continue
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, number)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return  # past the kernel's last capability, which may be newer than our list


def lower(kept: int) -> None:
    """Set permitted and effective to `kept` (0 for a user who is not root), inheritable and so ambient to nothing."""
    syscalls.capset(kept, kept, 0)


def become_with(uid: int, ambient: int) -> None:
    """Become an ordinary user who has `ambient` in every set: what the job asked for by name (capabilities(7)).

    Without that they would be gone with root's id, and again at the first execve(2).
    """
    syscalls.prctl(syscalls.PR_SET_KEEPCAPS, 1)
    os.setresuid(uid, uid, uid)
    syscalls.capset(ambient, ambient, ambient)
    for number in NUMBERS.values():
        if ambient >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)


def make_files_as(first_id: int) -> None:
    """Make and change files as the id `first_id` with all of host root's capabilities.

    A disk with mapped owners has no place for host root's own id (EOVERFLOW), and overlay acts with the ids its mounter
    had. setfsuid(2) lowers the capabilities over files, so they are raised again. A rootless worker's process becomes
    dumpable again too: else its own directory below /proc is host root's (proc(5)).
    """
    _, permitted, inheritable = syscalls.capget()
    syscalls.setfsgid(first_id)
    syscalls.setfsuid(first_id)
    syscalls.capset(permitted, permitted, inheritable)
    if os.geteuid() != 0:
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def make_ambient() -> None:
    """Have every capability of this thread outlive an exec(2) by a user who is not root."""
    _, permitted, _ = syscalls.capget()
    syscalls.capset(permitted, permitted, permitted)
    for number in range(64):
        if permitted >> number & 1:
            syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_RAISE, number)
