"""inotify(7) for directories of keepers: one watch each, set before the keeper is born, kept through the rename."""

import os
import struct

from dayfly.runtime import syscalls

_EVENT = struct.Struct("iIII")
_MASK = syscalls.IN_CREATE | syscalls.IN_MOVED_TO | syscalls.IN_MODIFY
_ROOM = 1 << 16
IN_Q_OVERFLOW = 0x4000


class Watches:
    """Readable `fd`: `changes` has something. The same watch number stands for a directory until it is unwatched."""

    def __init__(self) -> None:
        self.fd = syscalls.inotify_init1()

    def watch(self, directory: str) -> int:
        return syscalls.inotify_add_watch(self.fd, directory, _MASK)

    def unwatch(self, watch: int) -> None:
        try:
            syscalls.inotify_rm_watch(self.fd, watch)
        except OSError:
            return  # the directory is deleted, and its watch with it

    def changes(self) -> dict[int, set[str]] | None:
        """The names that changed, by watch; None when the kernel lost some: then look at every directory."""
        found: dict[int, set[str]] = {}
        while True:
            try:
                events = os.read(self.fd, _ROOM)
            except BlockingIOError:
                return found
            if not self._collect(events, found):
                return None

    def close(self) -> None:
        os.close(self.fd)

    def _collect(self, events: bytes, found: dict[int, set[str]]) -> bool:
        start = 0
        while start < len(events):
            watch, mask, _, length = _EVENT.unpack_from(events, start)
            start += _EVENT.size + length
            if mask & IN_Q_OVERFLOW:
                return False
            if not mask & syscalls.IN_IGNORED:
                name = events[start - length : start].rstrip(b"\0").decode(errors="replace")
                found.setdefault(watch, set()).add(name)
        return True
