"""Which host this is, and since when it runs, by the files in which the system says so."""

import functools
import hashlib
import socket


@functools.cache
def host_id() -> str:
    """A name of this host for people, with enough of its machine id to tell hosts of one name apart.

    Stable over reboots where /etc/machine-id is there (machine-id(5)), else good until the next boot.
    """
    identity = _read("/etc/machine-id") or boot_id()
    # machine-id(5) asks for a keyed hash of it, not for the id itself, in what leaves the host.
    digest = hashlib.sha256(b"dayfly host " + identity.encode()).hexdigest()
    return f"{socket.gethostname()}-{digest[:8]}"


@functools.cache
def boot_id() -> str:
    """Differs after every boot: what was running before it is dead, whatever a pid or a file says."""
    return _read("/proc/sys/kernel/random/boot_id")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
