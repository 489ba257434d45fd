"""A job's directory as its agent sees it: what it writes there, what it reads, and how it goes away.

The keeper's side is jobdir.py. A file is written before the directory is a job's, or appears whole (write, rename); the
lease alone is overwritten in place, in the keeper's `lock`, as it is always 20 digits: a reader sees the old one or the
new one.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterable

from dayfly.worker import exit as exits
from dayfly.worker import joblock, logfile
from dayfly.worker import record as records
from dayfly.worker.exit import Exit
from dayfly.worker.record import Record

PREPARING, READY, RUNNING, COLLECTING = _STATES = "preparing", "ready", "running", "collecting"
STOP, DISK, _STDIN = "stop", "disk.ext4", "stdin"
# The record goes before exit.json does: whoever finds neither sees a job that is over.
_KNOWN = (joblock.NAME, records.NAME, exits.NAME, *_STATES, STOP, DISK, _STDIN, logfile.NAME)
_OTHERS = (f"{logfile.NAME}.", logfile.SERVICE_PREFIX, *(f"{name}." for name in _KNOWN))
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
LARGEST = 64 << 20
"""Of a file that is read back."""


def write_record(directory: str, record: Record) -> None:
    """To be done before the directory is given the job's name."""
    _create(directory, records.NAME, record.to_json())


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
    fd = os.open(f"{directory}/{joblock.NAME}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(fd, b"%020d" % int(deadline * 1000), 0)
    finally:
        os.close(fd)


def write_stop(directory: str, reason: str, is_urgent: bool) -> None:
    _write(directory, STOP, json.dumps({"reason": reason, "now": is_urgent}).encode())


def read_stop(directory: str) -> str | None:
    """Why an agent, perhaps an earlier one, stopped the job."""
    try:
        reason = json.loads(_read(directory, STOP))["reason"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return reason if isinstance(reason, str) else None


def write_stdin(directory: str, content: bytes) -> None:
    """To be done before the directory is given the job's name."""
    _create(directory, _STDIN, content)


def stdin_path(directory: str) -> str:
    return f"{directory}/{_STDIN}"


def has(directory: str, name: str) -> bool:
    return os.path.exists(f"{directory}/{name}")


def discard(directory: str, directory_fd: int | None = None) -> bool:
    """Delete a job's directory by the names that are ours: a dozen unlinks, no walk. False when others are left.

    With `directory_fd` only what lies in that very directory is deleted, whatever has taken its path.
    """
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if directory_fd is None else directory_fd
    except FileNotFoundError:
        return True
    try:
        _unlink(fd, _KNOWN)
        return _remove(directory, fd)
    finally:
        if directory_fd is None:
            os.close(fd)


def _unlink(directory_fd: int, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=directory_fd)


def _remove(directory: str, directory_fd: int) -> bool:
    """Remove the directory; when it is not empty, its log's segments and half-written files first."""
    for is_last in (False, True):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            return True
        except OSError:
            if not os.path.samestat(os.stat(directory), os.fstat(directory_fd)):
                return True  # another attempt of the job lies there by now
            if is_last:
                return False
            _unlink(directory_fd, [name for name in os.listdir(directory_fd) if name.startswith(_OTHERS)])
        else:
            return True
    return False


def _write(directory: str, name: str, content: bytes) -> None:
    _create(directory, f"{name}.new", content)
    os.rename(f"{directory}/{name}.new", f"{directory}/{name}")


def _create(directory: str, name: str, content: bytes) -> None:
    fd = os.open(f"{directory}/{name}", _NEW, 0o600)
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[os.write(fd, remaining) :]
    finally:
        os.close(fd)


def _read(directory: str, name: str) -> bytes:
    fd = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    with open(fd, "rb", buffering=0) as file:
        return file.read(LARGEST) or b""
