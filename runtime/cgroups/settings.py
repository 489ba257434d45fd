"""The limits of one control group, written only where they differ from what it holds already.

So limits can be written ahead for a job that is only guessed at, and at its start only the difference is written.
A setting is a file of the group, or for io the file and a device: `{"pids.max": "512", "io.max 8:0": "rbps=1048576"}`.
"""

import errno
import os
from collections.abc import Callable, Mapping

from dayfly.jobs.errors import HostError
from dayfly.runtime.cgroups import controlfile


class Settings:
    """`fresh` is what a new group holds; a device that is not named there has the limit `free`."""

    def __init__(self, fresh: Mapping[str, str], free: str, place: Callable[[str], tuple[int, str]]) -> None:
        self._fresh = fresh
        self._free = free
        self._place = place
        self._held = dict(fresh)

    def apply(self, wanted: Mapping[str, str]) -> None:
        """Write the differences. Raises `HostError` with the file, the value and the remedy.

        The kernel takes some only in a certain order, which depends on whether the limit rises or falls (memory below
        memory and swap together, burst below quota): what is refused is tried once more after the others.
        """
        forgotten = {key: self._free for key in self._held if key not in self._fresh and key not in wanted}
        refused = []
        for key, value in (forgotten | dict(wanted)).items():
            if self._held.get(key, self._free) == value:
                continue
            try:
                self._write(key, value)
            except HostError as error:
                if error.errno not in (errno.EINVAL, errno.EBUSY):
                    raise
                refused.append((key, value))
        for key, value in refused:
            self._write(key, value)

    def _write(self, key: str, value: str) -> None:
        name, _, device = key.partition(" ")
        directory_fd, directory = self._place(name.partition(".")[0])
        controlfile.write(directory_fd, directory, name, f"{device} {value}" if device else value)
        self._held[key] = value


def close_all(fds: list[int]) -> None:
    """Close descriptors once, and forget them."""
    while fds:
        os.close(fds.pop())
