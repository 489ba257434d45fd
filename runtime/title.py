"""The command line that `ps` shows for a process of ours, overwritten in place.

A fork inherits its parent's argv, and init's is visible to the job. prctl(PR_SET_MM) would need CAP_SYS_RESOURCE, so
the bytes of argv are overwritten where they lie (proc(5): arg_start and arg_end in /proc/PID/stat).
"""

from functools import cache

from dayfly.runtime import syscalls

_ARG_START, _ARG_END = 47, 48  # fields 48 and 49 of proc(5), counted from 0


def set_title(title: str) -> None:
    """Show `title`, cut to the room that the original argv had."""
    start, end = find_argv()
    room = end - start
    syscalls.overwrite_memory(start, title.encode()[: room - 1].ljust(room, b"\0"))
    syscalls.set_process_name(title.encode().replace(b": ", b"-").partition(b" ")[0])


@cache
def find_argv() -> tuple[int, int]:
    """Where argv lies, the same in every fork: to be found before one into a PID namespace, where the host's
    /proc/self is nobody."""
    with open("/proc/self/stat", "rb") as file:
        after_name = file.read().rpartition(b") ")[2].split()
    return int(after_name[_ARG_START - 2]), int(after_name[_ARG_END - 2])
