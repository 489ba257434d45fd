"""Deleting a tree that a job has made, whatever it made of it.

A chain of a million directories must cost neither our stack nor our descriptors, and no link may lead us out. So a
directory that is not empty is moved up beside its parent and emptied there: no more than two are open at one time, and
no path is longer than one name. All of it may be done by several processes at once, and begun again after any stop.
"""

import math
import os
import time
from contextlib import suppress

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str, deadline: float = math.inf) -> bool:
    """Delete the directory and all below it, until `deadline` (time.monotonic) at most; True when nothing is left.

    What resists stays, and the rest goes.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        return True
    try:
        _empty(top, top, deadline)
    finally:
        os.close(top)
    with suppress(OSError):  # not empty then, which is told by what we return
        os.rmdir(path)
    return not os.path.lexists(path)


def _empty(directory: int, top: int, deadline: float) -> bool:
    """Pass over a directory until a pass changes nothing, as what is listed while entries go and come may miss some.

    True when any has.
    """
    has_changed = False
    while _pass(directory, top, deadline):
        has_changed = True
    return has_changed


def _pass(directory: int, top: int, deadline: float) -> bool:
    has_changed = False
    with os.scandir(directory) as entries:
        for entry in entries:
            if time.monotonic() >= deadline:
                return False
            with suppress(OSError):  # another process was faster, or it resists
                has_changed |= _remove(entry, directory, top, deadline)
    return has_changed


def _remove(entry: "os.DirEntry[str]", directory: int, top: int, deadline: float) -> bool:
    """Remove an entry, or move a directory that lies deeper up to `top`. True when that has changed anything."""
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.name, dir_fd=directory)
        return True
    if directory != top:
        os.rename(entry.name, os.urandom(16).hex(), src_dir_fd=directory, dst_dir_fd=top)
        return True
    inner = os.open(entry.name, _DIRECTORY, dir_fd=top)
    try:
        has_changed = _empty(inner, top, deadline)
    finally:
        os.close(inner)
    with suppress(OSError):
        os.rmdir(entry.name, dir_fd=top)
        return True
    return has_changed
