"""Where inputs are mounted: a path inside the container's root, made when it is not there.

To be used in the stage, before the pivot. Resolved inside `root` (openat2(2), RESOLVE_IN_ROOT), where nothing runs yet.
"""

import os

from dayfly.runtime import syscalls


def open_target(target: str, is_directory: bool) -> int:
    """An O_PATH descriptor of `target` inside `root`."""
    root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    resolve = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
    try:
        parts = [part for part in target.split("/") if part]
        for count in range(1, len(parts) + 1):
            _ensure(root, "/".join(parts[:count]), is_directory or count < len(parts), resolve)
        return syscalls.openat2(root, target, os.O_PATH, resolve=resolve)
    finally:
        os.close(root)


def _ensure(root: int, path: str, is_directory: bool, resolve: int) -> None:
    try:
        os.close(syscalls.openat2(root, path, os.O_PATH, resolve=resolve))
    except FileNotFoundError:
        parent, _, name = path.rpartition("/")
        above = syscalls.openat2(root, parent or ".", os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        try:
            if is_directory:
                os.mkdir(name, 0o755, dir_fd=above)
            else:
                os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=above))
        finally:
            os.close(above)
