"""When to look at a running job's disk: ext4 counts no refused write, so a full disk is known by having been seen.

Apart from the samples for the graph, whose distance grows with the job's life. A look is one statvfs(2) of each side.
"""

import time

from dayfly.runtime.directory_disk import DirectoryDisk
from dayfly.runtime.disk import Disk

_EVERY_SECONDS = 1.0
_EVERY_SECONDS_NEAR_THE_END = 0.25


class DiskLooks:
    """Looks at `disk` once a second, and four times a second while less than a quarter of its quota is free."""

    def __init__(self, disk: Disk | DirectoryDisk) -> None:
        self.due_at = time.monotonic() + _EVERY_SECONDS
        self._disk = disk

    def look_if_due(self, now: float) -> None:
        """Look when its time has come."""
        if now < self.due_at:
            return
        self._disk.look()
        self.due_at = now + (_EVERY_SECONDS_NEAR_THE_END if self._disk.is_nearly_full() else _EVERY_SECONDS)
