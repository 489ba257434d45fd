"""Executing a program in a container, as its init does once it has become the job's user."""

import errno
import os
import signal
import stat
from collections.abc import Mapping

from dayfly.runtime.shape import ContainerPlan
from dayfly.runtime.users import Identity

_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM)


class NotExecutableError(Exception):
    """The command is not there (127) or cannot be executed (126): the job's fault."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number
        self.message = message


def spawn(plan: ContainerPlan, env: dict[str, str], stdin: int | None, stdout: int, stderr: int) -> int:
    """Execute the plan's command and let go of its streams; returns its pid. Raises `NotExecutableError`."""
    if stdin is None:
        stdin = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    command = execute(plan.process.argv, env, stdin, stdout, stdout if plan.merge_streams else stderr)
    for fd in (stdin, stdout, stderr):
        os.close(fd)
    return command


def environment(plan: ContainerPlan, identity: Identity, secrets: Mapping[str, bytes]) -> dict[str, str]:
    """What the plan's command is to have in its environment; `secrets` are the values of the plan's secrets by name."""
    env = {"HOME": identity.home, **plan.process.env}
    return env | {each.env: os.fsdecode(secrets[each.name]) for each in plan.secrets if each.env is not None}


def execute(argv: tuple[str, ...], env: dict[str, str], stdin: int, stdout: int, stderr: int) -> int:
    """Execute a program in a session of its own; returns its pid. Raises `NotExecutableError`."""
    path = search(argv[0], env)
    actions = [
        (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_DUP2, stdout, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]
    try:
        return os.posix_spawn(
            path,
            argv,
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_PYTHON_IGNORES,
        )
    except OSError as error:
        raise cannot(error.errno or 0, argv[0]) from error


def search(name: str, env: Mapping[str, str]) -> str:
    """Find a program as execvp(3) does, in the job's own PATH."""
    if "/" in name:
        return name
    found = None
    for directory in env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").split(":"):
        candidate = f"{directory or '.'}/{name}"
        try:
            is_file = stat.S_ISREG(os.stat(candidate).st_mode)
        except OSError:  # not here, or not for us to see: the next directory may have it
            continue
        if is_file and os.access(candidate, os.X_OK):
            return candidate
        found = found or candidate
    raise cannot(errno.EACCES if found else errno.ENOENT, name)


def cannot(number: int, name: str) -> NotExecutableError:
    if number in (errno.ENOENT, errno.ENOTDIR):
        return NotExecutableError(number, f"{name}: command not found in the container")
    return NotExecutableError(number, f"{name}: cannot be executed: {os.strerror(number)}")
