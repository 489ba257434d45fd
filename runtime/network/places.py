"""Which places of the bridge are clean: no connection of their last job is in the kernel's table any more.

A place comes back late, so many are cleaned at a time, when one is asked for that is not known to be clean: all that no
job is at. What is known dies with its process, and counts for nothing once another process of the home gives places
away, as one does beside that of a killed worker.
"""

import os
import socket

from dayfly.jobs.errors import HostError
from dayfly.runtime.network import conntrack
from dayfly.runtime.network.addresses import Addresses

_LATEST = "run/network.pid"


class Places:
    """Of one home, as this process knows them."""

    def __init__(self, home: str) -> None:
        self._latest = f"{home}/{_LATEST}"
        self._clean: set[int] = set()
        with open(f"{self._latest}.new", "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
        os.rename(f"{self._latest}.new", self._latest)

    def take(self, index: int, addresses: Addresses) -> None:
        """A job is to have this place, which no other has: clean it, unless it is. Raises HostError."""
        if index not in self._clean or not self._is_latest():
            self._clean_all(addresses)
        self._clean.discard(index)

    def soil(self, index: int) -> None:
        """Something may have come by since it was cleaned."""
        self._clean.discard(index)

    def _is_latest(self) -> bool:
        with open(self._latest, encoding="ascii") as file:
            return file.read() == str(os.getpid())

    def _clean_all(self, addresses: Addresses) -> None:
        names = {name for _, name in socket.if_nameindex()}
        free = {index for index in range(addresses.capacity) if addresses.port(index) not in names}
        try:
            conntrack.forget(lambda packed: addresses.index_of(packed) in free)
        except OSError as error:
            raise HostError("forget the last jobs' connections in", str(addresses.subnet4), error.errno) from error
        self._clean = free
