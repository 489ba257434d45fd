"""What of a host directory a job may read: for those who read it as root in the job's place.

Whoever submits a job chooses the user that it runs as, so this is what the mapping of the directory's owner
(hosttree.py) shows to a job of any user:

- of a directory that is root's, everything, as root's whole range of ids is mapped;
- of another's, what belongs to its owner, what the directory's group may read, and what everybody may read.

A worker that is not root reads with its user's own rights, which need no such rule.
"""

import os
import stat
from dataclasses import dataclass
from typing import Self

from dayfly.runtime.idrange import RANGE_SIZE

NOBODY = 65534
_READ, _LIST = 0o4, 0o5
_ACL = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class View:
    """A directory of `owner`, whose `group` on disk is the job's; None: no group is."""

    owner: int
    group: int | None

    @classmethod
    def of(cls, directory: os.stat_result, own_group: int | None) -> Self:
        """Root's group is not given away with a directory that is not root's: then it is the owner's own, if there is
        one (own_group.py)."""
        return cls(directory.st_uid, directory.st_gid or (directory.st_uid and own_group))

    def shows(self, fd: int) -> bool:
        """Whether the job may read the file, or list and enter the directory, that `fd` is open at."""
        facts = os.fstat(fd)
        if facts.st_uid == self.owner or (self.owner == 0 and max(facts.st_uid, facts.st_gid) < RANGE_SIZE):
            return True
        wanted = _LIST if stat.S_ISDIR(facts.st_mode) else _READ
        if facts.st_mode & wanted == wanted:
            return True
        return facts.st_gid == self.group and facts.st_mode >> 3 & wanted == wanted and not _has_acl(fd)


def groups_in(directory: os.stat_result, own_group: int | None, gid: int) -> dict[int, int]:
    """Groups on disk, and what a job whose group is `gid` has in their place: its own one for the directory's, and some
    other one for the owner's own.

    Both must be somebody's, or a job could not change the files of its own user that have them (EACCES, EOVERFLOW).
    """
    group = View.of(directory, own_group).group
    groups = {} if group is None else {group: gid}
    if own_group is not None:
        groups.setdefault(own_group, NOBODY if gid != NOBODY else NOBODY - 1)
    return groups


def _has_acl(fd: int) -> bool:
    """With one the bits of the group are a mask, and say nothing of the group itself (acl(5))."""
    try:
        return _ACL in os.listxattr(fd)
    except OSError:
        return True
