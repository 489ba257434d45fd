"""What of the host's /etc goes into the image `host`: what any user of the host may read, less what tells secrets.

A file must be readable by all, in directories that all may enter. Then names and contents that hold keys, passwords or
tokens are left out even so: inside a job, code that nobody on this host wrote reads them.

A package manager may be at work meanwhile: what goes between two looks is left out, and its directory's new stamp has
the image made again at the next use.
"""

import fnmatch
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

MAX_FILE_BYTES = 4 << 20

# fmt: off
_LEFT_OUT = frozenset((
    # accounts and identity of the host
    "shadow", "shadow-", "gshadow", "gshadow-", "passwd-", "group-", "subuid", "subuid-", "subgid", "subgid-",
    "machine-id", "hostid", "adjtime", "security/opasswd", "sudoers", "sudoers.d",
    # what the job's own container says, or what is nobody's business
    "hosts", "hostname", "resolv.conf", "environment", "fstab", "crypttab", "exports", "motd", "issue", "issue.net",
    # where services keep credentials
    "NetworkManager", "apt/auth.conf", "apt/auth.conf.d", "cifs", "cloud", "cni", "containers/auth.json", "dayfly",
    "docker", "gitlab-runner", "ipsec.d", "krb5.keytab", "kubernetes", "letsencrypt", "mysql/debian.cnf", "netplan",
    "network/interfaces", "openvpn", "pki/private", "podman", "ppp", "rancher", "samba", "ssl/private", "wireguard",
    "wpa_supplicant",
))
# fmt: on
_LEFT_OUT_NAMES = (
    "ssh_host_*",
    "*_key",
    "*.key",
    "*.keytab",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*netrc",
    "*auth.json",
    "*secret*",
    "*credential*",
    "*token*",
)
_SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY"
    rb"|://[^/\s:@]+:[^/\s@]+@"  # user:password in a URL, as in pip.conf or sources.list
    rb"|_authToken"
    rb"|(?im:^[ \t]*(?:\w*[_.-])?(?:password|api_?key|auth_?token|client_?secret|secret_?key)[ \t]*=[ \t]*\S)"
)


@dataclass(frozen=True, slots=True)
class EtcEntry:
    """A thing to copy: its path below /etc, its lstat, and the content of a file or target of a symlink."""

    path: str
    status: os.stat_result
    content: bytes = b""


def walk_etc(etc: str) -> Iterator[EtcEntry]:
    """What is copied of the directory `etc`, parents before their children, each directory's names in order."""
    yield EtcEntry("", os.lstat(etc))
    yield from _walk(etc, "")


def _walk(etc: str, prefix: str) -> Iterator[EtcEntry]:
    for name in _names(f"{etc}/{prefix}"):
        entry = None if is_left_out(prefix + name) else _entry(etc, prefix + name)
        if entry is not None:
            yield entry
            if stat.S_ISDIR(entry.status.st_mode):
                yield from _walk(etc, entry.path + "/")


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:  # gone meanwhile
        return []


def _entry(etc: str, path: str) -> EtcEntry | None:
    """The entry for one path, if it is to be copied and still there."""
    source = f"{etc}/{path}"
    try:
        status = os.lstat(source)
        if stat.S_ISLNK(status.st_mode):
            return EtcEntry(path, status, os.fsencode(os.readlink(source)))
    except FileNotFoundError:  # gone meanwhile
        return None
    if stat.S_ISDIR(status.st_mode):
        return EtcEntry(path, status) if status.st_mode & 0o005 == 0o005 else None
    if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IROTH and status.st_size <= MAX_FILE_BYTES:
        content = _read(source)
        if content is not None and not _SECRET.search(content):
            return EtcEntry(path, status, content)
    return None


def is_left_out(path: str) -> bool:
    """Whether a path below /etc is left out by its name alone."""
    name = path.rpartition("/")[2]
    return path in _LEFT_OUT or any(fnmatch.fnmatchcase(name, pattern) for pattern in _LEFT_OUT_NAMES)


def _read(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # gone meanwhile, or a link by now
        return None
    with open(fd, "rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    return content if len(content) <= MAX_FILE_BYTES else None
