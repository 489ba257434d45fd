"""What a host may have set against the user namespaces of ordinary users, and how that is undone.

Every distribution has its own switch; none of them says so in the error that it causes.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Switch:
    """A sysctl, by its file below /proc/sys, that forbids them with the value `forbids`."""

    file: str
    forbids: str
    remedy: str


_SWITCHES = (
    Switch("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
    # Debian's and Arch's patch, on by default until Debian 10.
    Switch("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    # Ubuntu 23.10 and later: the namespace is made, but without capabilities over it.
    Switch(
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor takes every right in them from programs without a profile that says `userns,`: "
        "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give the worker's Python such a profile "
        "(docs/rootless.md)",
    ),
)


def what_forbids(sysctls: str = "/proc/sys") -> str | None:
    """What of this host's settings forbids them, with the remedy; None when none does."""
    for switch in _SWITCHES:
        if _read(f"{sysctls}/{switch.file}") == switch.forbids:
            name = switch.file.replace("/", ".")
            return f"{name} is {switch.forbids}: {switch.remedy}"
    return None


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:  # not every kernel has each of them
        return None
