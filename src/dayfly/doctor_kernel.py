"""Probes that make namespaces and mounts, each in a child of its own that takes them along when it ends."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from dayfly.doctor_check import Check, missing, ok, warning
from dayfly.runtime import syscalls
from dayfly.runtime.user_namespace_limits import what_forbids

_ALL = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)


def namespaces() -> Check:
    fault = in_child(lambda: syscalls.unshare(_ALL))
    if fault is None:
        return ok("namespaces", "user mnt pid net ipc uts cgroup")
    return missing("namespaces", f"unshare: {fault}", _namespace_remedy())


def overlay() -> Check:
    fault = in_child(lambda: overlay_in(_private_tmpfs()))
    if fault is None:
        return ok("overlay", "copy-on-write roots can be made")
    return missing("overlay", fault, "modprobe overlay; run as root and outside an unprivileged container")


def idmapped_mounts(path: str) -> Check:
    fault = fault_of_idmap(path)
    if fault is None:
        return ok("idmapped mounts", f"{path} can be given to a job's ids")
    return warning("idmapped mounts", f"{path}: {fault}", "a directory that cannot be mapped is copied instead; slower")


def fault_of_idmap(path: str) -> str | None:
    """Why a directory cannot be mounted with mapped owners; None when it can."""
    return in_child(lambda: _try_idmap(path))


def overlay_in(scratch: str, *more: str) -> None:
    """Mount an overlay in `scratch`, at `merged`, with `more` options; its lower layer has the directory `of_lower`."""
    for name in ("lower", "lower/of_lower", "upper", "work", "merged"):
        os.mkdir(f"{scratch}/{name}")
    places = (f"lowerdir={scratch}/lower", f"upperdir={scratch}/upper", f"workdir={scratch}/work")
    syscalls.mount("overlay", f"{scratch}/merged", "overlay", 0, ",".join((*places, *more)))


def _namespace_remedy() -> str:
    return what_forbids() or "run as root, outside a container that filters unshare"


def _try_idmap(path: str) -> None:
    tree = syscalls.open_tree(syscalls.AT_FDCWD, path, syscalls.OPEN_TREE_CLONE | syscalls.OPEN_TREE_CLOEXEC)
    users = _mapped_user_namespace()
    syscalls.mount_setattr(tree, "", syscalls.AT_EMPTY_PATH, syscalls.MOUNT_ATTR_IDMAP, 0, users)


def _private_tmpfs() -> str:
    """A scratch directory that only this process sees; what is mounted below goes with its namespace."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    scratch = tempfile.gettempdir()
    syscalls.mount("tmpfs", scratch, "tmpfs")
    return scratch


def _mapped_user_namespace() -> int:
    """A descriptor of a user namespace in which 0 is the host's 100000."""
    born_read, born_write = os.pipe()
    done_read, done_write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(done_write)
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            os.write(born_write, b"1")
            os.read(done_read, 1)
        finally:
            os._exit(0)
    os.close(born_write)
    os.read(born_read, 1)
    try:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{child}/{name}").write_text("0 100000 65536")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(done_write)
        os.waitpid(child, 0)


def in_child(probe: Callable[[], None]) -> str | None:
    """Run `probe` in a child; None when it succeeded, else why not."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _report(probe, write_end)
    os.close(write_end)
    with open(read_end, "rb") as report:
        text = report.read().decode(errors="replace")
    os.waitpid(child, 0)
    return text or None


def _report(probe: Callable[[], None], write_end: int) -> None:
    """Never returns: the child of a fork must not run its parent's clean-up."""
    try:
        probe()
    except BaseException as error:  # noqa: BLE001 - everything goes to the parent, as text
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        os.write(write_end, (text or type(error).__name__).encode())
    finally:
        os._exit(0)
