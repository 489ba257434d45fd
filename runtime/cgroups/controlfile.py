"""Reading and writing the files of a control group, relative to a descriptor of its directory."""

import errno
import os

from dayfly.jobs.errors import HostError, Unsupported

_REMEDIES = {
    errno.EACCES: "is Delegate=yes set in the unit?",
    errno.EPERM: "is Delegate=yes set in the unit?",
    errno.EROFS: "the cgroup file system is mounted read-only here: mount it read-write for the worker",
    errno.ENOENT: "this kernel or this subtree lacks the controller; `dayfly doctor` lists what is missing",
    errno.EINVAL: "the kernel does not take the value; check the job's limits",
    errno.ENOSPC: "too many control groups on this host",
    errno.EEXIST: "a control group is never used twice; what is left of another job is removed by the sweeper",
    errno.ENODEV: "no such block device; name it as major:minor of a whole disk",
}


def write(directory_fd: int, directory: str, name: str, value: str) -> None:
    """Write one value. Raises `HostError` with the file, the value and the remedy."""
    try:
        fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory_fd)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise failure(f"set {name}={value} in", directory, error) from error


def failure(step: str, path: str | None, error: OSError) -> HostError:
    """The error for a failed step on a control group, with what a person can do about it."""
    return HostError(step, path, error.errno, _REMEDIES.get(error.errno or 0))


def read(directory_fd: int, name: str) -> str | None:
    """The file's text, or None when this kernel has no such file or cannot tell (PSI switched off)."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory_fd)
    except FileNotFoundError:
        return None
    try:
        return os.read(fd, 65536).decode()
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None
        raise
    finally:
        os.close(fd)


def read_number(directory_fd: int, name: str) -> int | None:
    """A file of one number; None when it is not there or says `max`."""
    text = (read(directory_fd, name) or "").strip()
    return int(text) if text.lstrip("-").isdigit() else None


def read_keyed(directory_fd: int, name: str) -> dict[str, int]:
    """A file of `key number` lines, empty when it is not there."""
    lines = (line.split() for line in (read(directory_fd, name) or "").splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


def seconds(count: int | None, per_second: int) -> float | None:
    """A counter in seconds."""
    return None if count is None else count / per_second


def make_directory(path: str, *, exist_ok: bool = False) -> None:
    """mkdir(2). Raises `HostError`."""
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        if not (exist_ok and error.errno == errno.EEXIST):
            raise failure("make the control group", path, error) from error


def remove_directories(left: list[str]) -> bool:
    """Remove what can be removed of the list, and from it; True when nothing is left. A busy one stays."""
    for path in list(left):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            left.remove(path)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise failure("remove the control group", path, error) from error
        else:
            left.remove(path)
    return not left


def subdirectories(path: str) -> list[str]:
    """The names of the directories in a directory."""
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def lacking(controller: str) -> Unsupported:
    """The error for a limit whose controller this host does not give us."""
    return Unsupported(
        f"limit {controller}",
        reason=f"the control group has no controller {controller}",
        remedy="`dayfly doctor` says how to have it; or run the job without this limit",
    )
