"""Other people's containers around the same /bin/true, from the start of their program to its exit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# Podman raises rlimits to its own defaults, which root without CAP_SYS_RESOURCE may not.
_PODMAN_LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000")


def peers(root: Path, state: Path) -> dict[str, Callable[[], dict[str, float]]]:
    """Those that are installed; the others are named as left out."""
    state.mkdir()
    commands = {
        "bubblewrap (no cgroup, no overlay)": _bubblewrap(root),
        "runc run (no overlay)": _runc(root, state),
        "podman run --rootfs :O": _podman(root, state),
        "systemd-nspawn --volatile=overlay": _nspawn(root),
    }
    found = {}
    for name, command in commands.items():
        if shutil.which(command[0]) is None:
            print(f"left out: {name}: {command[0]} is not installed")
        elif (reason := _refusal(command)) is not None:
            print(f"left out: {name}: {reason}")
        else:
            found[name] = _timed(name, command)
    return found


def _refusal(command: Sequence[str]) -> str | None:
    tried = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return None if tried.returncode == 0 else tried.stderr.strip().splitlines()[-1]


def _timed(name: str, command: Sequence[str]) -> Callable[[], dict[str, float]]:
    path = shutil.which(command[0])
    assert path is not None
    quiet = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]

    def run() -> dict[str, float]:
        begin = time.perf_counter()
        pid = os.posix_spawn(path, command, os.environ, file_actions=quiet)
        status = os.waitpid(pid, 0)[1]
        took = time.perf_counter() - begin
        if status != 0:
            raise RuntimeError(f"{name} ended with status {status}")
        return {name: took * 1000}

    return run


def _bubblewrap(root: Path) -> list[str]:
    return ["bwrap", "--unshare-all", "--bind", str(root), "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]


def _runc(root: Path, state: Path) -> list[str]:
    if shutil.which("runc") is None:
        return ["runc"]
    bundle = state / "bundle"
    bundle.mkdir()
    subprocess.run(["runc", "spec"], cwd=bundle, check=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"] |= {"args": ["/bin/true"], "terminal": False, "rlimits": []}
    config["root"]["path"] = str(root)
    config["linux"]["resources"] |= {
        "memory": {"limit": 1 << 30},
        "pids": {"limit": 2048},
        "cpu": {"quota": 100000, "period": 100000},
    }
    (bundle / "config.json").write_text(json.dumps(config))
    return ["runc", "--root", str(state / "runc"), "run", "--bundle", str(bundle), f"dayfly-bench-{os.getpid()}"]


def _podman(root: Path, state: Path) -> list[str]:
    # Its own storage: the machine's containers and images stay as they are.
    own = ["--root", str(state / "podman"), "--runroot", str(state / "podman-run")]
    runtime = ["--runtime", "runc"] if shutil.which("runc") else []
    manager = ["--cgroup-manager", "cgroupfs"]
    options = ["--rm", "--network", "none", *_PODMAN_LIMITS, "--rootfs", f"{root}:O"]
    return ["podman", *own, *runtime, *manager, "run", *options, "/bin/true"]


def _nspawn(root: Path) -> list[str]:
    own = ["--register=no", "--keep-unit", "--quiet"]
    return ["systemd-nspawn", *own, "--volatile=overlay", "--directory", str(root), "/bin/true"]
