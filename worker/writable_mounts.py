"""Whether a job may write to what is root's on the host.

The owner of a mount is the job's user (hosttree.py), so in a directory of root's a job makes files of root's, with any
mode: a setuid program, or one with file capabilities. To the job itself they count for nothing (nosuid, no_new_privs);
to somebody else with an account on the host, who can reach the directory, they are the way to root. In a directory of
an ordinary user they are that user's, who could have made them.
"""

import os
import stat

from dayfly.jobs.errors import SpecError

_OTHERS = stat.S_IXGRP | stat.S_IXOTH  # with an ACL the group's bit says whether it lets anybody in


def check_roots(path: str, source: str, facts: os.stat_result) -> None:
    """Refuse to mount `source`, a real path, to be written, if others could execute there what a job leaves as root's.

    `path` is the field's; `facts` are those of `source`. Raises SpecError.
    """
    if facts.st_uid == 0 and not _is_nosuid(source) and not _is_out_of_reach(source):
        raise SpecError(
            path,
            f"{source} is root's, and what the job leaves there could be executed as root on this host: "
            "give it to an ordinary user, have it below a directory that only root may enter (chmod 700), "
            "or on a file system that is mounted nosuid",
        )


def _is_nosuid(source: str) -> bool:
    return bool(os.statvfs(source).f_flag & os.ST_NOSUID)


def _is_out_of_reach(source: str) -> bool:
    """Whether nobody but root gets there. The mode of `source` itself is the job's to change."""
    above = os.path.dirname(source)
    facts = os.stat(above)
    if facts.st_uid == 0 and not facts.st_mode & _OTHERS:
        return True
    return above != "/" and _is_out_of_reach(above)
