"""Starts the network's own process when a keeper first asks for it, and again when it has died. Lean.

The socket is there from the beginning and every keeper inherits its one end; a request waits in it until somebody
serves the other. So a worker whose jobs want no bridge has no such process, and pays two descriptors.
"""

import os
import socket
import sys

from dayfly.jobs.errors import HostError

_REQUESTS_FD = 3

# The program text is also the room for the process title.
_PROGRAM = """\
import sys
sys.path[:] = [*{paths!r}, *sys.path]
from dayfly.runtime.network.server import main
main({fd}, {home!r})
# dayfly ............................................................................................................
"""


class NetworkProcess:
    """`requests` is what keepers inherit; `waiting_fd` is readable when a request waits that nobody has taken."""

    def __init__(self, home: str, paths: list[str]) -> None:
        self._home = home
        self._paths = paths
        asked, served = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.requests = asked.detach()
        self.waiting_fd = served.detach()

    def start(self) -> int:
        """Start it; returns its pid. Raises HostError."""
        # Not -S: pyroute2 lies where site-packages are.
        program = _PROGRAM.format(paths=self._paths, fd=_REQUESTS_FD, home=self._home)
        try:
            return os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-c", program],
                {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
                file_actions=[(os.POSIX_SPAWN_DUP2, self.waiting_fd, _REQUESTS_FD)],
            )
        except OSError as error:
            raise HostError("start the network's process", sys.executable, error.errno) from error
