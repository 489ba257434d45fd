"""What a job runs, where the door and the worker must say and do the same."""

from __future__ import annotations

from dayfly.jobs.names import MAX_ARGUMENT_BYTES

# xtrace shows each command as it is about to run; PS4 must not reach the job's environment, so it is set, not given.
# On the script's own first line, so that the shell counts lines as its author does.
_ECHO = "PS4='$ '; set -x; "
_MAX_SCRIPT_BYTES = MAX_ARGUMENT_BYTES - len(_ECHO)


def check_script(script: str) -> str:
    """The script as it is. Raises ValueError for one that the kernel would not pass to the shell."""
    if len(script) > _MAX_SCRIPT_BYTES or len(script.encode()) > _MAX_SCRIPT_BYTES:
        raise ValueError(f"is longer than the {_MAX_SCRIPT_BYTES} bytes that a command may have")
    return script


def script_command(script: str) -> tuple[str, ...]:
    """The command that runs a script, each line echoed."""
    return ("/bin/sh", "-e", "-c", _ECHO + script)


def no_command(image: str) -> str:
    """Why a job that names no program cannot run in `image`."""
    return f"is missing: the image {image} has no command of its own; give one, or a script"
