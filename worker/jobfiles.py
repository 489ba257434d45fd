"""A job's directory as its agent sees it: what it writes there, what it reads, and how it goes away.

The keeper's side is jobdir.py. Every file appears whole (write, rename); the lease alone is overwritten in place, as it
is always 20 digits: a reader sees the old one or the new one.
"""

import contextlib
import json
import os
import time
from typing import Any

from dayfly.worker import exit as exits
from dayfly.worker import record as records
from dayfly.worker.exit import Exit
from dayfly.worker.record import Record

READY, RUNNING, COLLECTING = "ready", "running", "collecting"
_LEASE, _STOP, _SHIPPED, _STDIN = "lease", "stop", "shipped", "stdin"
_KNOWN = ("lock", records.NAME, exits.NAME, READY, RUNNING, COLLECTING, _LEASE, _STOP, _SHIPPED, _STDIN, "log")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
_LARGEST = 64 << 20


def write_record(directory: str, record: Record) -> None:
    _write(directory, records.NAME, record.to_json())


def read_record(directory: str) -> Record | None:
    """None when there is none, or none that can be read whole."""
    try:
        return Record.from_json(_read(directory, records.NAME))
    except (OSError, ValueError):
        return None


def read_exit(directory: str) -> Exit | None:
    """None when the keeper has not written one, or none that can be read whole."""
    try:
        return Exit.from_json(_read(directory, exits.NAME))
    except (OSError, ValueError):
        return None


def write_lease(directory: str, seconds_left: float) -> None:
    """Tell the keeper until when it may run (CLOCK_BOOTTIME counts suspend, as Redis's clock does)."""
    deadline = time.clock_gettime(time.CLOCK_BOOTTIME) + seconds_left
    fd = os.open(f"{directory}/{_LEASE}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(fd, b"%020d" % int(deadline * 1000), 0)
    finally:
        os.close(fd)


def write_stop(directory: str, reason: str, is_urgent: bool) -> None:
    _write(directory, _STOP, json.dumps({"reason": reason, "now": is_urgent}).encode())


def read_stop(directory: str) -> str | None:
    """Why an agent, perhaps an earlier one, stopped the job."""
    try:
        reason = json.loads(_read(directory, _STOP))["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reason if isinstance(reason, str) else None


def write_shipped(directory: str, cursor: dict[str, int]) -> None:
    _write(directory, _SHIPPED, json.dumps(cursor).encode())


def read_shipped(directory: str) -> dict[str, Any]:
    try:
        found = json.loads(_read(directory, _SHIPPED))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_stdin(directory: str, content: bytes) -> None:
    _write(directory, _STDIN, content)


def stdin_path(directory: str) -> str:
    return f"{directory}/{_STDIN}"


def has(directory: str, name: str) -> bool:
    return os.path.exists(f"{directory}/{name}")


def discard(directory: str) -> bool:
    """Delete a job's directory by the names that are ours: nine unlinks, no walk. False when others are left in it."""
    for name in _KNOWN:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{name}")
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(directory: str, name: str, content: bytes) -> None:
    path = f"{directory}/{name}"
    fd = os.open(f"{path}.new", _NEW, 0o600)
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(fd, remaining) :]
    finally:
        os.close(fd)
    os.rename(f"{path}.new", path)


def _read(directory: str, name: str) -> bytes:
    fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        return file.read(_LARGEST) or b""
