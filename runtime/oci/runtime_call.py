"""One call of an OCI runtime's command line, as runc has it and the others took it over.

`run --detach` creates and starts in one; the bundle, the state and the log lie in `BUNDLE`, in the caller's own mount
namespace, so that none of it can be left behind.
"""

import json
import os
import signal
from typing import Any

from dayfly.jobs.errors import HostError
from dayfly.runtime.oci.programs import PATH
from dayfly.runtime.rootfs import BUNDLE

_LOG, _PID_FILE = f"{BUNDLE}/log", f"{BUNDLE}/pid"
OPTIONS = ("--detach", "--bundle", BUNDLE, "--pid-file", _PID_FILE)
"""Of the runtime's `run`."""

_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
_ENVIRONMENT = {"PATH": PATH}


def start(program: str, config: dict[str, Any], streams: tuple[int, int, int]) -> int:
    """Start the job of `config` with these three streams; the process's number. Raises `HostError`.

    The process is the caller's child, if it is the reaper of orphans below itself.
    """
    with open(f"{BUNDLE}/config.json", "w") as file:
        json.dump(config, file)
    own = ["--root", f"{BUNDLE}/state", "--log", _LOG, "--log-format", "json"]
    run = ["run", *OPTIONS, f"dayfly-{os.getpid()}"]
    try:
        runtime = os.posix_spawn(
            program,
            [program, *own, *run],
            _ENVIRONMENT,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setsigmask=(),
            setsigdef=_PYTHON_IGNORES,
        )
    except OSError as error:
        raise HostError("run the OCI runtime", program, error.errno, "see [runtime] oci and `dayfly doctor`") from error
    _, status = os.waitpid(runtime, 0)
    if status != 0:
        raise HostError("have the job started by", program, reason=_last_words(os.waitstatus_to_exitcode(status)))
    with open(_PID_FILE) as file:
        pid = int(file.read())
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError as error:  # then nobody here would hear of its end
        raise HostError("follow the job started by", program, reason="its process is not below us") from error
    return pid


def _last_words(code: int) -> str:
    """The last error in the runtime's log, in which each line is a JSON object."""
    try:
        with open(_LOG, errors="replace") as file:
            entries = [json.loads(line) for line in file if line.startswith("{")]
    except (OSError, ValueError):
        entries = []
    errors = [entry["msg"] for entry in entries if entry.get("level") in ("error", "fatal") and "msg" in entry]
    return errors[-1] if errors else f"it ended with {code} and said nothing"
