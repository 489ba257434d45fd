"""Which name servers a job asks: the operator's, else the host's as far as a job can reach them.

A host's resolver on a loopback address is the host's alone. systemd-resolved tells those behind it in a file of its
own; another one on 127.0.0.1 (dnsmasq, unbound) is reached by way of the gateway (`ruleset.py`, chain `names`).
"""

import ipaddress
import os
from dataclasses import dataclass, replace

RESOLV_CONF = "/etc/resolv.conf"
_BEHIND_RESOLVED = "/run/systemd/resolve/resolv.conf"
_AT_MOST = 3  # resolv.conf(5), MAXNS
_LARGEST_FILE = 1 << 16


@dataclass(frozen=True, slots=True)
class Resolvers:
    """`servers` are reached as they are; `loopback` by the gateway's address, when there are no others."""

    servers: tuple[str, ...]
    loopback: str | None = None
    others: tuple[str, ...] = ()

    def forwarded_by(self, address: str) -> "Resolvers":
        """The same where `address` asks the host's own resolver, which is on its loopback, for us."""
        return self if self.loopback is None else replace(self, servers=(address,), loopback=None)

    def resolv_conf(self, gateway4: str) -> str:
        """resolv.conf(5) for a job."""
        servers = self.servers or ((gateway4,) if self.loopback else ())
        lines = [*(f"nameserver {server}" for server in servers), *self.others]
        return "".join(f"{line}\n" for line in lines)


def find_resolvers(stated: tuple[str, ...]) -> Resolvers:
    """What the operator stated, else what the host has."""
    servers, others = _read(RESOLV_CONF)
    servers = list(stated) or servers
    reachable = [each for each in servers if not _is_loopback(each)]
    if not reachable and not stated:
        reachable = [each for each in _read(_BEHIND_RESOLVED)[0] if not _is_loopback(each)]
    if reachable:
        return Resolvers(tuple(reachable[:_AT_MOST]), None, others)
    return Resolvers((), next((each for each in servers if ":" not in each), None), others)


def stamp() -> tuple[int, ...]:
    """Changes when the host's name servers may have changed."""
    stamps = []
    for path in (RESOLV_CONF, _BEHIND_RESOLVED):
        try:
            found = os.stat(path)
        except OSError:
            stamps.append(0)
        else:
            stamps += [found.st_mtime_ns, found.st_ino, found.st_size]
    return tuple(stamps)


def _read(path: str) -> tuple[list[str], tuple[str, ...]]:
    """Name servers, and the lines `search`, `domain` and `options`."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_LARGEST_FILE).splitlines()
    except OSError:
        return [], ()
    words = [line.split() for line in lines]
    servers = [each[1] for each in words if len(each) > 1 and each[0] == "nameserver" and _is_address(each[1])]
    others = tuple(" ".join(each) for each in words if each and each[0] in ("search", "domain", "options"))
    return servers, others


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:  # with a scope (fe80::1%eth0) it means nothing elsewhere
        return False
    return "%" not in text


def _is_loopback(text: str) -> bool:
    return ipaddress.ip_address(text).is_loopback
