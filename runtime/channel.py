"""The conversation between a keeper and its init: two pipes, five messages.

    keeper                                   init (PID 1)
       │      ◄──────────── READY (notes) ──────┤  the root is built; it waits, knowing nothing of a job
       ├────────────────── START (plan) ───────►│  mounts, pivot, identity, spawn
       │      ◄──────────── SPAWNED (notes) ────┤  the command has been executed
       │      ◄──────────── EXITED (status) ────┤  the command's end, and whether anything else still lives
       │
       │      ◄──────────── FAULT (why) ────────┤  instead of READY or SPAWNED: the container could not be made
       │      ◄──────────── REFUSED (why) ──────┤  instead of SPAWNED: the command cannot be executed (the job's fault)

A stop travels as SIGTERM to init, which passes the job's stop signal on; a keeper's death as end-of-file and
PR_SET_PDEATHSIG.
"""

import enum
import json
import os
import struct
from typing import Any

_HEADER = struct.Struct("<BI")


class Message(enum.IntEnum):
    """The kinds of messages; see the diagram above."""

    READY = 1
    START = 2
    SPAWNED = 3
    EXITED = 4
    FAULT = 5
    REFUSED = 6


class Channel:
    """One side of the conversation."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Both sides; after the fork each process closes the other's."""
        (read_a, write_b), (read_b, write_a) = os.pipe(), os.pipe()
        return cls(read_a, write_a), cls(read_b, write_b)

    def send(self, message: Message, /, **fields: Any) -> None:
        """Send one message, whole."""
        body = json.dumps(fields).encode() if fields else b""
        remaining = memoryview(_HEADER.pack(message, len(body)) + body)
        while remaining:
            remaining = remaining[os.write(self.write_fd, remaining) :]

    def receive(self) -> tuple[Message, dict[str, Any]] | None:
        """The next message, or None when the other side is gone."""
        header = self._read(_HEADER.size)
        if len(header) < _HEADER.size:
            return None
        kind, length = _HEADER.unpack(header)
        body = self._read(length)
        if len(body) < length:
            return None
        return Message(kind), json.loads(body) if body else {}

    def close(self) -> None:
        """Close this side."""
        os.close(self.read_fd)
        os.close(self.write_fd)

    def _read(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            chunk = os.read(self.read_fd, length - len(received))
            if not chunk:
                break
            received += chunk
        return received
