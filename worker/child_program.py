"""A program of ours in a process of its own: it is told in JSON on its stdin, and tells in JSON on its stdout, a line
each. What it writes to stderr is the agent's own stderr, or, with `has_log`, a pipe."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

# Not -S: packages lie where site-packages are. The dots make room for set_title().
_PROGRAM = """\
import sys
sys.path[:] = [*{paths!r}, *sys.path]
from {module} import main
main()
# dayfly ............................................................................................................
"""
_CHUNK = 64 << 10


class ChildProgram:
    """`main` of `module`. Raises OSError."""

    def __init__(self, module: str, request: Mapping[str, Any], *, has_log: bool = False) -> None:
        with _file_of(request) as asked:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _PROGRAM.format(paths=sys.path, module=module)],
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if has_log else None,
                bufsize=0,
            )
        self._unread = b""
        self.is_over = False
        """Whether it has closed its stdout: nothing more is told."""
        for fd in self.fds:
            os.set_blocking(fd, False)

    @property
    def fd(self) -> int:
        """Readable when there is something for `told`."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    @property
    def log_fd(self) -> int:
        """Readable when there is something for `log`."""
        assert self._process.stderr is not None
        return self._process.stderr.fileno()

    @property
    def fds(self) -> list[int]:
        return [self.fd] if self._process.stderr is None else [self.fd, self.log_fd]

    def told(self) -> list[Mapping[str, Any]]:
        """What it has told since the last call."""
        piece = _read(self.fd)
        self.is_over = piece == b""
        *lines, self._unread = (self._unread + (piece or b"")).split(b"\n")
        return [json.loads(line) for line in lines]

    def log(self) -> bytes:
        """What it has written to stderr since the last call, a part of it; b"" at the end."""
        piece = _read(self.log_fd)
        return b"" if piece is None else piece

    def terminate(self) -> None:
        """SIGTERM: it tidies up and ends. `bury` waits for it."""
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def bury(self) -> None:
        """Wait for its end, and close what led to it."""
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._process.wait()


def _file_of(request: Mapping[str, Any]) -> BinaryIO:
    """A file without a name: a pipe would hold up the agent, whatever is larger than 64 KiB, until it is read."""
    file = open(os.memfd_create("request", os.MFD_CLOEXEC), "wb+")  # noqa: SIM115 - the caller closes it
    file.write(json.dumps(request).encode())
    file.seek(0)
    return file


def _read(fd: int) -> bytes | None:
    """None: nothing is there now."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
