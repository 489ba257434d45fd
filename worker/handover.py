"""What an agent says to a warm keeper, down the control pipe between the two and nowhere else.

    "go\\n"                                           run the record that lies in the directory
    "go:" length (u32) {"NAME": "value in base64"}   the same, with the secrets of the job

It goes by in one write(2): a pipe that nobody has written to holds 64 KiB (pipe(7)), and jobs/secret_use.py bounds what
the values have together. Keepers import this file: lean.
"""

import json
import os
import struct
from binascii import b2a_base64
from collections.abc import Mapping

_PLAIN, _WITH_SECRETS = b"go\n", b"go:"
_LENGTH = struct.Struct("<I")


def tell(fd: int, secrets: Mapping[str, bytes]) -> None:
    """Let the keeper at the other end go. Raises BrokenPipeError when it is dead."""
    if not secrets:
        os.write(fd, _PLAIN)
        return
    body = json.dumps({name: b2a_base64(value, newline=False).decode() for name, value in secrets.items()}).encode()
    os.write(fd, _WITH_SECRETS + _LENGTH.pack(len(body)) + body)


def hear(fd: int) -> dict[str, str] | None:
    """The secrets of the job in base64, by name; None when the agent has closed its end without a word."""
    word = os.read(fd, len(_PLAIN))
    if not word:
        return None
    if word == _PLAIN:
        return {}
    (length,) = _LENGTH.unpack(_read(fd, _LENGTH.size))
    secrets: dict[str, str] = json.loads(_read(fd, length))
    return secrets


def _read(fd: int, length: int) -> bytes:
    received = b""
    while len(received) < length:
        chunk = os.read(fd, length - len(received))
        if not chunk:
            raise EOFError("the agent's word ended in the middle")
        received += chunk
    return received
