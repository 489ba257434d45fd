"""Owner, mode, time and extended attributes of a file in an image: which are kept, and how they are set."""

import math
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from dayfly.runtime.images.owners import keeps_capabilities, on_disk

NOBODY = 65534
MAX_ID = 65535  # a job's id range holds 65536 ids; a file of another would have no owner inside
_PAX_XATTR = "SCHILY.xattr."
_CAPABILITY = "security.capability"
_CAPABILITY_V2 = 0x02000000  # linux/capability.h: without a root id of its own, so it follows the idmapped mount
_LATEST_SECOND = 1 << 34


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is set on a file besides its content. `mode` is without the type, setuid and setgid bits included."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of_entry(cls, entry: tarfile.TarInfo) -> tuple[Self, list[str]]:
        """The attributes of an archive's entry, and what was left out of them, a line each."""
        xattrs, left_out = _xattrs_of(entry)
        owners = [number if 0 <= number <= MAX_ID else NOBODY for number in (entry.uid, entry.gid)]
        if owners != [entry.uid, entry.gid]:
            left_out.append(f"owners outside 0-{MAX_ID}, given to nobody ({NOBODY})")
        return cls(entry.mode & 0o7777, owners[0], owners[1], _mtime_ns(entry), xattrs), left_out

    @classmethod
    def of(cls, fd: int, path: bytes, status: os.stat_result) -> Self:
        """The attributes of a regular file or directory in another layer, which has been through `of_entry`."""
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            xattrs = {name: os.getxattr(file, name) for name in os.listxattr(file) if _is_kept(name)}
        finally:
            os.close(file)
        return cls(status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)

    def apply(self, fd: int) -> None:
        """Set everything on an open file or directory. The order matters: chown clears setuid bits and capabilities."""
        os.fchown(fd, *on_disk(self.uid, self.gid))
        os.fchmod(fd, self.mode)
        for name, value in self.xattrs.items():
            if name != _CAPABILITY or keeps_capabilities():
                os.setxattr(fd, name, value)
        os.utime(fd, ns=(self.mtime_ns, self.mtime_ns))

    def apply_to_link(self, name: bytes, parent: int) -> None:
        """Set owner and time of a symlink, which has no mode and no extended attributes of ours."""
        os.chown(name, *on_disk(self.uid, self.gid), dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=(self.mtime_ns, self.mtime_ns), dir_fd=parent, follow_symlinks=False)


def is_wanted(name: str, value: bytes) -> bool:
    """Whether an extended attribute goes into an image.

    `trusted.*` and `user.overlay.*` would speak to overlay itself, which obeys a redirect or an opaque mark that an
    image smuggles in; the others (SELinux labels, POSIX ACLs) mean nothing under an id-mapped mount.
    """
    if name == _CAPABILITY:
        return len(value) == 20 and int.from_bytes(value[:4], "little") & ~1 == _CAPABILITY_V2
    return _is_kept(name)


def _is_kept(name: str) -> bool:
    return name == _CAPABILITY or (name.startswith("user.") and not name.startswith("user.overlay."))


def _xattrs_of(entry: tarfile.TarInfo) -> tuple[dict[str, bytes], list[str]]:
    kept: dict[str, bytes] = {}
    left_out: list[str] = []
    for key, text in entry.pax_headers.items():
        if key.startswith(_PAX_XATTR):
            name, value = key.removeprefix(_PAX_XATTR), text.encode("utf-8", "surrogateescape")
            if is_wanted(name, value) and not entry.issym():
                kept[name] = value
            else:
                left_out.append(f"extended attributes {name.split('.')[0]}.*")
    return kept, left_out


def _mtime_ns(entry: tarfile.TarInfo) -> int:
    """tarfile turns a pax time into a float and loses its nanoseconds; the header's text has them."""
    text = str(entry.pax_headers.get("mtime", ""))
    whole, _, fraction = text.partition(".")
    if not text.isascii() or not whole.removeprefix("-").isdecimal() or len(whole) > 12:
        whole, fraction = str(int(entry.mtime) if math.isfinite(entry.mtime) else 0), ""
    digits = fraction[:9] if fraction.isdecimal() else ""
    nanoseconds = int(digits.ljust(9, "0") or "0")
    seconds = min(max(int(whole), -_LATEST_SECOND), _LATEST_SECOND)
    return seconds * 10**9 + (-nanoseconds if whole.startswith("-") else nanoseconds)
