"""Where Dayfly keeps what belongs to one user of one machine, and which job was that user's last."""

import contextlib
import os
from pathlib import Path

from dayfly.jobs.errors import JobNotFound

LAST = "@last"


def default_home() -> Path:
    """DAYFLY_HOME when nobody sets it: /var/lib/dayfly for root, $XDG_STATE_HOME/dayfly for anybody else."""
    if os.geteuid() == 0:
        return Path("/var/lib/dayfly")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "dayfly"


def home() -> Path:
    return Path(os.path.abspath(os.environ.get("DAYFLY_HOME") or default_home()))


def remember_last(job_id: str) -> None:
    """Make `job_id` what `@last` stands for. It is a comfort: where it cannot be written, the job goes on."""
    file = home() / "last"
    draft = file.with_name(f"last.{os.getpid()}")
    with contextlib.suppress(OSError):  # a home that is read-only or not ours
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.write_text(job_id + "\n")
        draft.replace(file)


def named(text: str) -> str:
    """An id or a prefix of one as it is, `@last` as the id that it stands for. Raises JobNotFound."""
    if text != LAST:
        return text
    last = _last_job()
    if last is None:
        raise JobNotFound(text, "no job was submitted from here yet")
    return last


def _last_job() -> str | None:
    try:
        return (home() / "last").read_text().strip() or None
    except OSError:
        return None
