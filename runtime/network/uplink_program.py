"""pasta(1) or slirp4netns(1): joins a network namespace to the host's network by sockets of an ordinary user's.

Both are told the same plan, slirp4netns's own one. Neither leads anybody to the host's loopback, or a port of the
host's into the namespace.
"""

import os
import shutil
import signal
from dataclasses import dataclass
from typing import Self

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls

LINK = "uplink"
RESOLVER = "10.0.2.3"
"""Asks the first one of the host's /etc/resolv.conf, wherever that listens: pasta by UDP alone."""

TUN = "/dev/net/tun"
REMEDY = "`apt-get install passt` (or slirp4netns), or run the worker as root"

_PASTA = (
    *("--foreground", "--quiet", "--config-net", "--ns-ifname", LINK),
    *("--address", "10.0.2.100", "--netmask", "24", "--gateway", "10.0.2.2", "--dns-forward", RESOLVER),
    *("--no-map-gw", "--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"),
    *("--netns-only", "--netns"),
)
_SLIRP4NETNS = (
    *("--configure", "--disable-host-loopback", "--enable-sandbox", "--enable-seccomp"),
    *("--mtu", "65520", "--netns-type", "path"),
)


@dataclass(frozen=True, slots=True)
class UplinkProgram:
    """`path` is absolute."""

    path: str

    @classmethod
    def find(cls) -> Self:
        """pasta, which is the faster one and has IPv6 where the host has it; else slirp4netns. Raises HostError."""
        for name in ("pasta", "slirp4netns"):
            path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{os.defpath}")
            if path is not None:
                return cls(path)
        reason = "neither pasta nor slirp4netns is installed"
        raise HostError("reach the host's network without root", None, None, REMEDY, reason=reason)

    def argv(self, namespace: str) -> list[str]:
        """The command line for the namespace that is mounted there."""
        if os.path.basename(self.path) == "pasta":
            return [self.path, *_PASTA, namespace]
        return [self.path, *_SLIRP4NETNS, namespace, LINK]

    def start(self, namespace: str, log: str) -> int:
        """Start it as a child that ends with this process; what it says goes to the file `log`. Returns its pid."""
        pid = os.fork()
        if pid == 0:
            try:
                _become_quiet(log)
                os.execv(self.path, self.argv(namespace))
            finally:
                os._exit(127)
        return pid


def _become_quiet(log: str) -> None:
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it; pasta takes that for a fault
    null = os.open(os.devnull, os.O_RDONLY)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for number, fd in enumerate((null, file, file)):
        os.dup2(fd, number)
