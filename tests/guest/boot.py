"""PID 1 of the user-mode Linux guest: mounts, modules, the tests, their exit status on the console, power off."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path

_MODULES = ("fs/overlayfs/overlay.ko", "drivers/block/loop.ko")
_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_POWER_OFF = 0x4321FEDC
_CONTROLLERS = "+cpu +io +memory +pids"
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    try:
        arguments = Path(os.environ["GUEST_ARGUMENTS"]).read_text().split("\n")[:-1]
        _mount_everything()
        _load_modules()
        status = _run_tests(arguments)
    except BaseException as error:  # noqa: BLE001 - PID 1 must not end: the kernel would panic
        print(f"dayfly-guest: {error!r}", flush=True)
        status = 125
    print(f"dayfly-guest: exit {status}", flush=True)
    os.sync()
    _libc.reboot(_POWER_OFF)


def _mount_everything() -> None:
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    _mount("proc", "/proc", "proc")
    _mount("sysfs", "/sys", "sysfs")
    _mount("tmpfs", "/run", "tmpfs")
    _cover("/tmp", "/dev/ubda", "ext4")
    # Dayfly's default home lies here.
    _cover("/var/lib", "tmpfs", "tmpfs")
    _mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    os.makedirs("/dev/pts", exist_ok=True)
    os.makedirs("/dev/shm", exist_ok=True)
    _mount("devpts", "/dev/pts", "devpts", "ptmxmode=0666")
    _mount("tmpfs", "/dev/shm", "tmpfs")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text(_CONTROLLERS)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
    socket.sethostname("guest")


def _mount(source: str, target: str, kind: str, options: str = "defaults") -> None:
    subprocess.run(["mount", "-t", kind, "-o", options, source, target], check=True)


def _cover(target: str, source: str, kind: str) -> None:
    """Make `target` writable, but keep the clone and the interpreter visible where they lie below it."""
    _mount(source, "/mnt", kind)
    kept_below = {os.environ["GUEST_CLONE"], sys.prefix, sys.base_prefix}
    for kept in kept_below:
        is_within_another = any(kept.startswith(f"{other}/") for other in kept_below)
        if kept.startswith(f"{target}/") and not is_within_another:
            os.makedirs("/mnt" + kept[len(target) :])
            subprocess.run(["mount", "--bind", kept, "/mnt" + kept[len(target) :]], check=True)
    subprocess.run(["mount", "--move", "/mnt", target], check=True)


def _load_modules() -> None:
    """finit_module(2): kmod is not on every machine."""
    directory = Path("/usr/lib/uml/modules") / os.uname().release / "kernel"
    left_out = os.environ.get("GUEST_WITHOUT", "").split(",")
    for name in _MODULES:
        if Path(name).stem in left_out:
            continue
        fd = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
        if _libc.syscall(_FINIT_MODULE[platform.machine()], fd, b"", 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
        os.close(fd)


def _run_tests(arguments: list[str]) -> int:
    os.environ |= {"HOME": "/tmp", "CI": "true", "LANG": "C.UTF-8", "PY_COLORS": "0"}
    # The clone is read-only here.
    os.environ |= {"PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/.hypothesis"}
    os.chdir(os.environ["GUEST_CLONE"])
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "timeout=900", *arguments]
    tests = os.posix_spawn(sys.executable, command, dict(os.environ))
    # PID 1 reaps whatever daemonised, until the tests themselves have ended.
    while True:
        pid, status = os.wait()
        if pid == tests:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


main()
