"""What a job asks for beyond the confinement of every job, or gives up of it: capabilities, the filter, devices.

Each is a switch that an operator must have allowed; a job never runs with less than it asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from dayfly.jobs.names import shown

_NAMES = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"

CAPABILITIES = tuple(_NAMES.split())
"""The kernel's capabilities without `CAP_`, in the order of linux/capability.h, which numbers them."""

DEFAULT_CAPABILITIES = frozenset(_DEFAULT.split())
"""What a job's root has: Podman's eleven. docs/security.md says what needs each of them."""

ALL = "ALL"


class Seccomp(StrEnum):
    """Whether the filter of system calls is on."""

    DEFAULT = "default"
    UNCONFINED = "unconfined"


@dataclass(frozen=True, slots=True)
class Device:
    """A device of the host that the job sees at `target`, below /dev. `permissions`: of r, w and m, as Docker's."""

    source: str
    target: str
    permissions: str = "rw"

    def to_document(self) -> dict[str, Any]:
        return {"source": self.source, "target": self.target, "permissions": self.permissions}


def check_capability(text: str) -> str:
    """`SYS_PTRACE`, `CAP_SYS_PTRACE`, `sys_ptrace` or `ALL`: the name as the kernel has it, without `CAP_`."""
    name = text.upper().removeprefix("CAP_")
    if name != ALL and name not in CAPABILITIES:
        raise ValueError(f"must be a capability such as SYS_PTRACE, or ALL, got {shown(text)}")
    return name


def kept(add: Iterable[str], drop: Iterable[str], *, privileged: bool = False) -> frozenset[str]:
    """The capabilities of a job's root, by Docker's rules: one of the lists may say ALL, the other one names them."""
    added, dropped = set(add), set(drop)
    if ALL in added or (privileged and ALL not in dropped):
        return frozenset(CAPABILITIES) - dropped
    before = frozenset() if ALL in dropped else DEFAULT_CAPABILITIES - dropped
    return before | added
