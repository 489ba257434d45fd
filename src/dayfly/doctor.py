"""What this host can enforce: one Check per thing, each tried out and not looked up.

The probes that need namespaces of their own are in doctor_kernel.py, those of a job's disk in doctor_disk.py, those of
the bridge in doctor_network.py; what Redis has to say is in doctor_queue.py, the keys are in doctor_keys.py.
"""

import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from dayfly import doctor_disk, doctor_kernel, doctor_keys, doctor_network, doctor_queue, doctor_rootless
from dayfly.config import Settings, home_directory
from dayfly.doctor_check import Check, missing, ok, warning
from dayfly.jobs.errors import DayflyError
from dayfly.jobs.units import format_size

_LOW_DISK_BYTES = 5 << 30
_CONTROLLER_REMEDY = "mount its cgroup controller, or give it on (Delegate=yes in the unit of the worker)"


def examine(settings: Settings) -> Iterator[Check]:
    """Every check, in the order in which somebody would mend them. None raises."""
    home = home_directory(settings)
    yield _kernel()
    is_root = os.geteuid() == 0
    yield ok("rights", "root") if is_root else doctor_rootless.rights()
    yield doctor_kernel.namespaces()
    yield doctor_kernel.overlay()
    if is_root:
        yield doctor_kernel.idmapped_mounts("/usr")
    else:
        yield from doctor_rootless.examine(home)
    yield from _cgroups()
    yield from doctor_disk.examine(home)
    yield _seccomp()
    if (runtime := settings.text("runtime.oci")) is not None:
        yield _oci_runtime(runtime)
    yield _pidfd()
    yield _guarded("network links", _links)
    yield from doctor_network.examine(settings)
    yield _space(home)
    yield from doctor_keys.examine(settings)
    yield from doctor_queue.examine(settings)


def _kernel() -> Check:
    release = platform.release()
    numbers = [int(part) for part in release.replace("-", ".").split(".")[:2] if part.isdigit()]
    text = f"Linux {release}, {platform.machine()}, Python {platform.python_version()}"
    if sys.platform != "linux":
        return missing("kernel", f"{sys.platform}, not Linux", "run the worker on Linux; a client needs only Redis")
    if numbers < [5, 12]:
        return missing(
            "kernel", text, "Linux 5.12 or newer is needed (mount_setattr); 5.19 for idmapped overlay layers"
        )
    return ok("kernel", text)


def _cgroups() -> Iterator[Check]:
    from dayfly.runtime.cgroups.hierarchy import open_hierarchy

    try:
        hierarchy = open_hierarchy(f"doctor-{os.getpid()}")
    except DayflyError as error:
        yield missing("control groups", error.message, error.remedy or "")
        return
    except OSError as error:
        yield missing("control groups", f"{error.filename}: {error.strerror}", "run as root, or with Delegate=yes")
        return
    if not hierarchy.version:
        why = hierarchy.lacking["memory"]
        yield warning("control groups", why, "jobs that state limits are refused, others run without any")
        return
    description = hierarchy.describe()
    directories = description["directories"]
    for directory in set(directories.values()) if isinstance(directories, dict) else ():
        os.rmdir(directory)
    yield ok("control groups", f"version {hierarchy.version}")
    for name in ("cpu", "memory", "pids"):
        reason = hierarchy.lacking.get(name)
        yield missing(f"  {name}", reason, _CONTROLLER_REMEDY) if reason else ok(f"  {name}", "can be limited")
    for name, reason in hierarchy.lacking.items():
        if name not in ("cpu", "memory", "pids"):
            yield warning(f"  {name}", reason, "a job that asks for it is refused; readings of it are null")


def _seccomp() -> Check:
    try:
        actions = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError:
        return missing("seccomp", "this kernel has no seccomp filters", "use a kernel with CONFIG_SECCOMP_FILTER")
    if platform.machine() not in ("x86_64", "aarch64"):
        return missing("seccomp", f"no table of system calls for {platform.machine()}", "x86_64 and aarch64 have one")
    return ok("seccomp", f"{len(actions)} actions")


def _oci_runtime(runtime: str) -> Check:
    from dayfly.runtime.oci import programs

    try:
        program = programs.find(runtime)
        text = f"{programs.version(program)}, {program}"
    except DayflyError as error:
        return missing("OCI runtime", error.message, error.remedy or "")
    if os.path.basename(program) not in programs.TESTED:
        return warning("OCI runtime", text, "only runc and crun are tested; see docs/runtimes.md")
    return ok("OCI runtime", text)


def _pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        return missing("pidfd", error.strerror or "refused", "use Linux 5.3 or newer, and no filter that refuses it")
    return ok("pidfd", "processes are followed without races")


def _links() -> Check:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        names = [link.get("ifname") for link in route.get_links()]
    if "lo" not in names:
        return missing(
            "network links", "no link lo", "ip link add lo type dummy; the loopback of this namespace is gone"
        )
    return ok("network links", ", ".join(sorted(str(name) for name in names)))


def _space(home: Path) -> Check:
    there = next(path for path in (home, *home.parents) if path.exists())
    found = os.statvfs(there)
    free = found.f_bavail * found.f_frsize
    text = f"{format_size(free)} free in {there}"
    if free < _LOW_DISK_BYTES:
        return warning("disk space", text, "free some, or set DAYFLY_HOME to a larger file system")
    return ok("disk space", text)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except (OSError, ImportError) as error:
        return missing(name, str(error), "reinstall dayfly with its dependencies, or look at this error")
    except Exception as error:  # noqa: BLE001 - netlink errors are pyroute2's own class, which is imported only above
        return missing(
            name, f"{type(error).__name__}: {error}", "netlink is refused here; see what filters this process"
        )
