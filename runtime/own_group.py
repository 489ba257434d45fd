"""The group that is one user's alone: that of the same number, as useradd(8) makes it (USERGROUPS_ENAB)."""

import functools
import grp
import pwd


@functools.lru_cache(maxsize=64)
def own_group(uid: int) -> int | None:
    """None where the group of that number is somebody else's: number 42 is `_apt` among Debian's users, and `shadow`
    among its groups."""
    try:
        return uid if pwd.getpwuid(uid).pw_gid == uid else None
    except KeyError:
        pass
    try:
        grp.getgrgid(uid)
    except KeyError:
        return uid
    return None
