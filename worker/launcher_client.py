"""The agent's side of the launcher: starts it, asks it for keepers, hears of their births.

One message a request (SOCK_SEQPACKET): `{"token", "shape"}` with the read end of the keeper's control pipe, answered by
`{"token", "pid"}` or `{"token", "error"}`. When our end closes the launcher leaves; keepers that have a job live on.
"""

import contextlib
import json
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dayfly.jobs.errors import HostError
from dayfly.runtime.shape import Shape, fields_of

_SOCKET_FD = 3
_LARGEST_REPLY = 1 << 16

# The program text is also the room for the process titles that launcher and keepers write over their argv.
_PROGRAM = """\
import sys
sys.path[:] = [*{paths!r}, *sys.path]
from dayfly.worker.launcher import main
main({fd}, {home!r}, {tag!r}, {paths!r}, {oci!r})
# dayfly ............................................................................................................
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """The launcher's answer to one request: the keeper's pid, or why there is none."""

    token: str
    pid: int | None
    error: str | None


class Launcher:
    """A running launcher. Readable `fd`: replies, or its end."""

    def __init__(self, own: socket.socket, pid: int) -> None:
        self._socket = own
        self.pid = pid
        self.fd = own.fileno()
        self._shape: Shape | None = None
        self._shape_json = ""

    @classmethod
    def start(cls, home: Path, cgroup_tag: str, oci_runtime: str | None = None) -> Self:
        """Start one for `home`; `oci_runtime` starts the jobs in place of our own init. Raises HostError."""
        own, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            own.setblocking(False)
            program = _PROGRAM.format(
                paths=_import_path(), fd=_SOCKET_FD, home=str(home), tag=cgroup_tag, oci=oci_runtime
            )
            try:
                pid = os.posix_spawn(
                    sys.executable,
                    [sys.executable, "-I", "-S", "-c", program],
                    # Nothing of our environment: it may hold the password of Redis, and keepers hand theirs on.
                    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_DUP2, 2, 1),
                        (os.POSIX_SPAWN_DUP2, its.fileno(), _SOCKET_FD),
                    ],
                )
            except OSError as error:
                own.close()
                raise HostError("start the launcher", sys.executable, error.errno) from error
        return cls(own, pid)

    def request(self, token: str, shape: Shape, control_fd: int) -> bool:
        """Ask for a keeper. False when the launcher is gone or does not listen: then start another."""
        if shape is not self._shape:
            self._shape, self._shape_json = shape, json.dumps(shape, default=fields_of)
        message = f'{{"token":"{token}","shape":{self._shape_json}}}'.encode()
        try:
            socket.send_fds(self._socket, [message], [control_fd])
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False
        return True

    def replies(self) -> list[Reply] | None:
        """The replies that have come; None when the launcher is gone."""
        found: list[Reply] = []
        while True:
            try:
                raw = self._socket.recv(_LARGEST_REPLY)
            except BlockingIOError:
                return found
            except ConnectionResetError:
                return None
            if not raw:
                return None
            fields = json.loads(raw)
            found.append(Reply(fields["token"], fields.get("pid"), fields.get("error")))

    def close(self) -> None:
        """Let it go, and wait until it has: it leaves when it reads the end of its socket."""
        self._socket.close()
        with contextlib.suppress(ChildProcessError):  # reaped already
            os.waitpid(self.pid, 0)


def _import_path() -> list[str]:
    """Where the launcher finds `dayfly`: the directory that holds this very package, and nothing else of ours."""
    import dayfly

    return [str(Path(entry).parent) for entry in dayfly.__path__]
