"""The conversation between a keeper and its init, over a pair of connected sockets.

    keeper                                   init (PID 1)
       ├────────────────── PARTS (fds) ────────►│  the job's disk, and how to join its control group
       │      ◄──────────── READY (notes) ──────┤  the root is built; it waits, knowing nothing of a job
       ├────────────────── START (plan) ───────►│  mounts, pivot, identity, spawn
       │      ◄──────────── SPAWNED (notes) ────┤  the command has been executed
       │      ◄──────────── EXITED (status) ────┤  the command's end, and whether anything else still lives
       │
       │      ◄──────────── TRIED (why) ────────┤  of a service, before EXITED: why it does not serve yet, when that
       │                                        │  has changed; perhaps that it never will
       │      ◄──────────── SERVING ────────────┤  of a service, once: it serves
       │
       │      ◄──────────── FAULT (why) ────────┤  instead of READY or SPAWNED: the container could not be made
       │      ◄──────────── REFUSED (why) ──────┤  instead of SPAWNED: the command cannot be executed (the job's fault)

A stop travels as SIGTERM to init, which passes the job's stop signal on; a keeper's death as end-of-file and
PR_SET_PDEATHSIG.
"""

import enum
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from dayfly.runtime.shape import fields_of

_HEADER = struct.Struct("<BI")
_FDS_AT_MOST = 16


class Message(enum.IntEnum):
    """The kinds of messages; see the diagram above."""

    PARTS = 1
    READY = 2
    START = 3
    SPAWNED = 4
    EXITED = 5
    FAULT = 6
    REFUSED = 7
    TRIED = 8
    SERVING = 9


class Channel:
    """One side of the conversation."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self.fd = connected.fileno()

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """Both sides; after the fork each process closes the other's."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(one), cls(other)

    def send(self, message: Message, /, **fields: Any) -> None:
        """Send one message, whole."""
        body = json.dumps(fields, default=fields_of).encode() if fields else b""
        self._socket.sendall(_HEADER.pack(message, len(body)) + body)

    def send_fds(self, message: Message, fds: Sequence[int]) -> None:
        """Send a message that is nothing but descriptors (unix(7), SCM_RIGHTS)."""
        socket.send_fds(self._socket, [_HEADER.pack(message, 0)], fds)

    def receive_fds(self) -> list[int] | None:
        """The descriptors of the next message, which is one of `send_fds`; None when the other side is gone."""
        header, fds, _, _ = socket.recv_fds(self._socket, _HEADER.size, _FDS_AT_MOST)
        return fds if header else None

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
        self._socket.close()

    def _read(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            try:
                chunk = self._socket.recv(length - len(received))
            except ConnectionResetError:  # it died with a message of ours unread
                break
            if not chunk:
                break
            received += chunk
        return received
