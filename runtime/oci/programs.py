"""Where an OCI runtime lies, and which version it is."""

import os

from dayfly.jobs.errors import HostError

TESTED = ("runc", "crun")
"""The others are called in the same way, and nobody here has seen them do it."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Ours, not the caller's: a worker is started with any."""

_PROGRAMS = {"kata": "kata-runtime"}
_REMEDY = "install it, or set [runtime] oci to another one; without it Dayfly starts jobs itself"


def find(runtime: str) -> str:
    """The program of a runtime that is named or given by its absolute path, without links. Raises `HostError`."""
    name = _PROGRAMS.get(runtime, runtime)
    if not name.startswith("/") and "/" in name:
        raise HostError("find the OCI runtime", runtime, None, _REMEDY, reason="its path must be absolute")
    candidates = [name] if name.startswith("/") else [f"{directory}/{name}" for directory in PATH.split(":")]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return os.path.realpath(candidate)
    raise HostError("find the OCI runtime", runtime, None, _REMEDY, reason="no such program on this host")


def version(program: str) -> str:
    """The first line of what `--version` prints. Raises `HostError`."""
    import subprocess  # only where somebody asks

    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError("ask for its version", program, None, _REMEDY, reason=str(error)) from error
    return told.stdout.partition("\n")[0].strip()
