"""A job's secrets as files: in memory, read-only, the job's user's own, and in no disk that could outlive the job.

One tmpfs at /run/secrets holds them all; what is wanted at another path is that file, bound there. The mount point is
all that the job's disk sees of it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dayfly.runtime import syscalls
from dayfly.runtime.idrange import IdMap
from dayfly.runtime.shape import Secret
from dayfly.runtime.targets import open_target
from dayfly.runtime.tmpfs import attach, make_tmpfs
from dayfly.runtime.users import Identity

_DIRECTORY = "/run/secrets"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_SAFE = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | syscalls.MOUNT_ATTR_NOEXEC
_CLONE = syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC


@dataclass(frozen=True, slots=True)
class GiveSecretFiles:
    """To be applied in the stage, before the pivot. `values` has each secret's bytes by its name."""

    secrets: tuple[Secret, ...]
    values: Mapping[str, bytes]
    ids: IdMap
    user: Identity

    def describe(self) -> str:
        return f"give the secrets {', '.join(each.file or f'{_DIRECTORY}/{each.name}' for each in self.secrets)}"

    def apply(self) -> None:
        filesystem = self._make()
        try:
            for secret in self.secrets:
                self._write(filesystem, secret)
            # its user could not write there anyway; root could
            syscalls.mount_setattr(filesystem, "", syscalls.AT_EMPTY_PATH, syscalls.MOUNT_ATTR_RDONLY)
            attach(filesystem, _DIRECTORY, is_directory=True)
        finally:
            os.close(filesystem)
        for secret in self.secrets:
            if secret.file is not None:
                _bind(secret)

    def _make(self) -> int:
        options = {"mode": "0755", "size": "1m", "nr_inodes": "128"}
        options |= {"uid": str(self.ids.first), "gid": str(self.ids.first)}
        return make_tmpfs(options, _SAFE)

    def _write(self, filesystem: int, secret: Secret) -> None:
        fd = os.open(secret.name, _NEW, 0o600, dir_fd=filesystem)
        try:
            os.write(fd, self.values[secret.name])
            os.fchown(fd, self.ids.first + self.user.uid, self.ids.first + self.user.gid)
            os.fchmod(fd, secret.mode)
        finally:
            os.close(fd)


def _bind(secret: Secret) -> None:
    """The file at its own path too: a copy of the mount is made from the attached one, as older kernels want it."""
    source = open_target(f"{_DIRECTORY}/{secret.name}", is_directory=False)
    try:
        tree = syscalls.open_tree(source, "", syscalls.AT_EMPTY_PATH | _CLONE)
    finally:
        os.close(source)
    try:
        attach(tree, secret.file or "", is_directory=False)
    finally:
        os.close(tree)
