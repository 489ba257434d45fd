"""The names that a container knows by a file of its own: /etc/hosts, when services live beside it.

The file lies in a small tmpfs of the stage and is bound over the image's, so nothing is written into the container's
own layer: neither a frozen root nor `artifacts: {changed: true}` has it.
"""

import os
from dataclasses import dataclass

from dayfly.runtime import syscalls
from dayfly.runtime.targets import open_target

HOSTS = "/etc/hosts"

_LOCALHOST = b"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
_SAFE = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC


@dataclass(frozen=True, slots=True)
class GiveHosts:
    """Have each of `neighbours` mean 127.0.0.1, beside localhost or, with `is_hosts_own`, what the host's file has."""

    neighbours: tuple[str, ...]
    is_hosts_own: bool

    def describe(self) -> str:
        return f"have {', '.join(self.neighbours)} mean 127.0.0.1 in {HOSTS}"

    def apply(self) -> None:
        syscalls.mount("tmpfs", "names", "tmpfs", _SAFE, "mode=755,size=1m")
        with open("names/hosts", "wb", buffering=0) as file:
            file.write(self._content())
            os.fchmod(file.fileno(), 0o644)
        target = open_target(HOSTS, is_directory=False)
        try:
            _bind("names/hosts", target)
        finally:
            os.close(target)

    def _content(self) -> bytes:
        before = _read_host() if self.is_hosts_own else _LOCALHOST
        return before + b"".join(b"127.0.0.1\t%s\n" % name.encode() for name in self.neighbours)


def _bind(source: str, target: int) -> None:
    tree = syscalls.open_tree(syscalls.AT_FDCWD, source, syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC)
    try:
        flags = syscalls.MOVE_MOUNT_F_EMPTY_PATH | syscalls.MOVE_MOUNT_T_EMPTY_PATH
        syscalls.move_mount(tree, "", target, "", flags)
    finally:
        os.close(tree)


def _read_host() -> bytes:
    try:
        with open(HOSTS, "rb", buffering=0) as file:
            return (file.read() or b"").rstrip() + b"\n"
    except FileNotFoundError:
        return _LOCALHOST
