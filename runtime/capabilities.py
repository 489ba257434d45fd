"""Capabilities of a job: Docker's default fourteen, and nothing in any other set.

The order matters and is capabilities(7)'s: ambient is cleared first, then the bounding set is cut (needs CAP_SETPCAP),
then permitted and effective are lowered. Inheritable stays empty, so that a file with inheritable capabilities gains
nothing (CVE-2022-24769).
"""

import errno
import os
from collections.abc import Iterable

from dayfly.runtime import syscalls

_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DOCKER = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""

NUMBERS = {name: number for number, name in enumerate(_ALL.split())}
"""The kernel's capabilities without `CAP_`, numbered as in linux/capability.h."""

DEFAULT = frozenset(_DOCKER.split())
"""What Docker leaves a container by default."""


def mask(names: Iterable[str]) -> int:
    """The names as a bit mask, the form in which /proc/PID/status shows a set."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


DEFAULT_MASK = mask(DEFAULT)


def drop_to(kept: int = DEFAULT_MASK) -> None:
    """Cut bounding, permitted and effective of this thread down to the mask `kept`; ambient and inheritable empty.

    For a thread whose user is not root only the bounding set keeps anything, as execve(2) would have it. Call it after
    the user has been set; keep CAP_SETPCAP until then (setuid from root keeps nothing of permitted anyway).
    """
    syscalls.prctl(syscalls.PR_CAP_AMBIENT, syscalls.PR_CAP_AMBIENT_CLEAR_ALL)
    drop_bounding(kept)
    lower(kept if os.geteuid() == 0 else 0)


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
    """Set permitted and effective to `kept`, inheritable to nothing."""
    syscalls.capset(kept, kept, 0)
