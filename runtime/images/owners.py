"""Which ids files of images have on disk. Host root's have those that the job sees, since each mount maps them.

A rootless worker cannot mount so, and its jobs share one range (idrange.py): there files have the ids of that range.
Overlay's own marks have another name too, for `trusted.*` is host root's (overlayfs.rst, "userxattr").
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager

from dayfly.runtime import capabilities
from dayfly.runtime.idrange import OWN_ID, IdMap, own_id_map

_OVERFLOW_ID = 65534  # /proc/sys/kernel/overflowuid


@functools.cache
def ids() -> IdMap:
    """Those that jobs of this process have; it is in the user namespace that it stays in when it first asks."""
    return own_id_map() or IdMap(0)


def on_disk(uid: int, gid: int) -> tuple[int, int]:
    """What a file of that owner in the image has on disk."""
    return ids().on_disk(uid), ids().on_disk(gid)


def in_image(status: os.stat_result) -> tuple[int, int]:
    """Whose a file of this host is in an image made of it.

    What is a rootless worker's own there becomes root's, and so does what is the host's: of the host's ids it sees no
    more than that they are none of its own (user_namespaces(7), "overflow").
    """
    if ids().is_mounted:
        return status.st_uid, status.st_gid
    uid, gid = (0 if each in (OWN_ID, _OVERFLOW_ID) else each for each in (status.st_uid, status.st_gid))
    return uid, gid


def opaque_mark() -> str:
    """The attribute of a directory that hides what the layers below have at its place."""
    return "trusted.overlay.opaque" if ids().is_mounted else "user.overlay.opaque"


def keeps_capabilities() -> bool:
    """Whether `security.capability` can be set: it needs a root in our namespace to be for (capabilities(7))."""
    return not ids().is_single


@contextmanager
def made_by_root() -> Iterator[None]:
    """What is made meanwhile belongs to the image's root."""
    if ids().is_mounted:
        yield
        return
    capabilities.make_files_as(ids().first)
    try:
        yield
    finally:
        capabilities.make_files_as(OWN_ID)
