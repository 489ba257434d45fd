"""Who a job runs as: the image's or document's `user`, looked up in the container's own /etc/passwd and /etc/group.

Both files are the image's and may be anything: a FIFO, a link to the host's /etc/shadow, two gigabytes of nothing
(CVE-2026-46680, CVE-2026-47262, CVE-2024-9676). They are opened inside the container's root only (openat2(2),
RESOLVE_IN_ROOT), without blocking, and read up to a bound.
"""

import os
import stat
from dataclasses import dataclass

from dayfly.runtime import syscalls

_LARGEST_FILE = 1 << 20
_LARGEST_ID = 65535  # the job's user namespace maps 65536 ids


class UnknownUserError(ValueError):
    """The image has no such user or group."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Numbers for setresuid, setresgid and setgroups, and the home directory."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


ROOT = Identity(0, 0, (0,), "/root")


def look_up(user: str, root: str) -> Identity:
    """`name`, `uid`, `name:group`, `uid:gid` or nothing (root), as the tree at `root` has it.

    Raises `UnknownUserError`.
    """
    if user in ("", "0", "root", "0:0"):
        return ROOT
    name, _, group = user.partition(":")
    entry = _entry(_lines(root, "etc/passwd"), name, 7)
    uid = _number(name) if name.isdecimal() else _field(entry, 2, f"user {name}")
    groups = _lines(root, "etc/group")
    if group:
        gid = _number(group) if group.isdecimal() else _field(_entry(groups, group, 4), 2, f"group {group}")
        return Identity(uid, gid, (gid,), _home(entry))
    gid = _number(entry[3]) if entry else 0
    memberships = _memberships(groups, entry[0]) if entry else set()
    return Identity(uid, gid, tuple(sorted({gid, *memberships})), _home(entry))


def _home(entry: list[str] | None) -> str:
    return entry[5] if entry and entry[5].startswith("/") else "/"


def _field(entry: list[str] | None, index: int, what: str) -> int:
    if entry is None:
        raise UnknownUserError(f"the image has no {what}")
    return _number(entry[index])


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 5 or int(text) > _LARGEST_ID:
        raise UnknownUserError(f"the id {text[:32]} is not between 0 and {_LARGEST_ID}")
    return int(text)


def _entry(lines: list[str], key: str, fields: int) -> list[str] | None:
    """The line whose name, or for digits whose number, is `key`."""
    column = 2 if key.isdecimal() else 0
    for line in lines:
        entry = line.split(":")
        if len(entry) >= fields and entry[column] == key:
            return entry
    return None


def _memberships(lines: list[str], name: str) -> set[int]:
    entries = (line.split(":") for line in lines)
    return {_number(entry[2]) for entry in entries if len(entry) >= 4 and name in entry[3].split(",")}


def _lines(root: str, path: str) -> list[str]:
    above = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
    try:
        fd = syscalls.openat2(above, path, flags, resolve=syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS)
    except OSError:  # an image need not have the file
        return []
    finally:
        os.close(above)
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > _LARGEST_FILE:
            raise UnknownUserError(f"the image's {path} is not a file of at most {_LARGEST_FILE} bytes")
        return os.read(fd, _LARGEST_FILE).decode(errors="replace").splitlines()
    finally:
        os.close(fd)
