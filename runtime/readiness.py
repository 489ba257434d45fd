"""Whether a service serves: tried again and again by its own init, from inside of its container.

Nothing tells when a port is listened on or when a program has finished its preparations, so this is asked, at once and
then ever more slowly; between two tries init waits for its children, as it always does, so an end is seen at once.
"""

import os
import signal
import socket
import time
from collections.abc import Callable

from dayfly.jobs.services import Ready
from dayfly.runtime.channel import Channel, Message

_FIRST_PAUSE_SECONDS = 0.01
_LONGEST_PAUSE_SECONDS = 0.25
_CONNECT_SECONDS = 1.0
_OUTPUT_BYTES = 400

Spawn = Callable[[tuple[str, ...], int, int], int]
"""Execute (argv, stdin, output) as the service's command is; returns the pid."""


class _Ended(Exception):  # noqa: N818 - no error: the service is over
    def __init__(self, status: int) -> None:
        self.status = status


def await_serving(ready: Ready, channel: Channel, command: int, spawn: Spawn) -> int | None:
    """Try until the service serves, which the keeper is told, as it is told each new reason why it does not yet.

    The command's status (waitpid(2)) when it has ended before that, else None. How long is long enough is the keeper's
    to say.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    attempt = _Connection(ready.tcp_port) if ready.tcp_port is not None else _Check(ready.command, command, spawn)
    pause, told = _FIRST_PAUSE_SECONDS, None
    try:
        while (why := attempt()) is not None:
            if why != told:
                channel.send(Message.TRIED, why=why, is_final=False)
                told = why
            _wait(command, pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
    except _Ended as end:
        return end.status
    channel.send(Message.SERVING)
    return None


class _Connection:
    """Connect to a port of the loopback interface, and hang up."""

    def __init__(self, port: int) -> None:
        self._port = port

    def __call__(self) -> str | None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            try:
                probe.connect(("127.0.0.1", self._port))
            except OSError as error:
                return error.strerror or str(error)
        return None


class _Check:
    """Run a command and look at its exit code; what it said last is the reason when that is not 0."""

    def __init__(self, argv: tuple[str, ...], command: int, spawn: Spawn) -> None:
        self._argv = argv
        self._command = command
        self._spawn = spawn
        self._stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._output = os.memfd_create("check")

    def __call__(self) -> str | None:
        os.ftruncate(self._output, 0)
        os.lseek(self._output, 0, os.SEEK_SET)
        code = os.waitstatus_to_exitcode(self._status(self._spawn(self._argv, self._stdin, self._output)))
        if code == 0:
            return None
        ending = f"exit code {code}" if code > 0 else f"ended by signal {-code}"
        return f"{ending}: {said}" if (said := self._said()) else ending

    def _status(self, check: int) -> int:
        while True:
            pid, status = os.wait()
            if pid == check:
                return status
            if pid == self._command:
                raise _Ended(status)

    def _said(self) -> str:
        size = os.fstat(self._output).st_size
        last = os.pread(self._output, _OUTPUT_BYTES, max(0, size - _OUTPUT_BYTES))
        return " | ".join(last.decode(errors="replace").split("\n")).strip(" |")


def _wait(command: int, seconds: float) -> None:
    """Reap for so long. Raises `_Ended` when it is the command that has ended."""
    until = time.monotonic() + seconds
    while True:
        _reap(command)
        left = until - time.monotonic()
        if left <= 0 or signal.sigtimedwait({signal.SIGCHLD}, left) is None:
            return


def _reap(command: int) -> None:
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == command:
            raise _Ended(status)
        if pid == 0:
            return
