"""Which part of the version 2 tree is ours to divide, and making it hand its controllers on.

systemd marks a group that it leaves to others with the extended attribute `user.delegate` (unit setting Delegate=yes,
and each user's own manager). The nearest marked group around this process is the one. Root without a marked group uses
the top of the tree as Docker's and runc's cgroupfs drivers do; an ordinary user without one has no control groups.

A group with processes in it cannot hand its memory controller on (cgroups(7), "no internal processes"). If this
process, or its container, sits right in that group, everything in it is moved into the leaf `dayfly-agent`.
"""

import errno
import os

from dayfly.jobs.errors import HostError, Unsupported
from dayfly.runtime.cgroups import controlfile

LEAF = "dayfly-agent"
_MARKS = ("user.delegate", "trusted.delegate")


def find_base(mount: str, own: str, *, is_root: bool) -> str:
    """The directory of the group that is ours to divide. Raises `Unsupported` when there is none."""
    path = own.rstrip("/")
    while path:
        if _is_marked(mount + path):
            return mount + path
        path = path.rpartition("/")[0]
    if is_root or _is_marked(mount):
        return mount
    raise Unsupported(
        "divide a control group",
        mount + own,
        reason="no group around this process is delegated to its user",
        remedy="start the worker as a systemd user service, or with Delegate=yes in its unit",
    )


def hand_on(base: str, controllers: tuple[str, ...]) -> dict[str, str]:
    """Have `base` hand the controllers on to its children. Returns those that it cannot, with the reason."""
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        offered = (controlfile.read(fd, "cgroup.controllers") or "").split()
        handed = (controlfile.read(fd, "cgroup.subtree_control") or "").split()
        lacking = {
            name: f"{base} has no controller {name}: it is not delegated, or in use by version 1"
            for name in controllers
            if name not in offered
        }
        wanted = [f"+{name}" for name in controllers if name in offered and name not in handed]
        if wanted:
            _hand_on(fd, base, " ".join(wanted))
        return lacking
    finally:
        os.close(fd)


def _hand_on(fd: int, base: str, wanted: str) -> None:
    """All in one write: cpu alone would be handed on by a group with processes, which then is the root of a threaded
    subtree, and neither memory nor a child that takes the processes is to be had any more (EOPNOTSUPP)."""
    try:
        controlfile.write(fd, base, "cgroup.subtree_control", wanted)
    except HostError as error:
        if error.errno != errno.EBUSY:
            raise
        _clear(fd, base)
        controlfile.write(fd, base, "cgroup.subtree_control", wanted)


def _clear(fd: int, base: str) -> None:
    """Move every process of the group itself into a leaf below it."""
    controlfile.make_directory(os.path.join(base, LEAF), exist_ok=True)
    for pid in (controlfile.read(fd, "cgroup.procs") or "").split():
        try:
            controlfile.write(fd, base, f"{LEAF}/cgroup.procs", pid)
        except HostError as error:
            if error.errno != errno.ESRCH:  # it ended meanwhile
                raise


def _is_marked(directory: str) -> bool:
    for mark in _MARKS:
        try:
            if os.getxattr(directory, mark) == b"1":
                return True
        except OSError:
            continue  # no such attribute, or trusted ones may not be read
    return False
