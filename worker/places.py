"""The directories of a worker's home that agent and sweeper use, and the lock that makes them one agent's."""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from dayfly.jobs.errors import HostError
from dayfly.runtime.directory_disk import DIRECTORY


def names_in(directory: str) -> list[str]:
    """What a directory holds; nothing where there is none."""
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


class Places:
    """Paths as text: they are joined and opened some ten times a job."""

    def __init__(self, home: Path) -> None:
        self.home = str(home)
        self.jobs = f"{home}/jobs"
        self.keepers = f"{home}/keepers"
        self.disks = f"{home}/{DIRECTORY}"
        self.trash = f"{home}/trash"
        self.kept = f"{home}/kept"
        self.run = f"{home}/run"
        self.builds = f"{home}/build"
        self.build_logs = f"{home}/build/logs"
        self.build_caches = f"{home}/build-cache"

    def make(self) -> None:
        """Raises HostError when the home cannot be used."""
        try:
            for path in (self.home, self.jobs, self.keepers, self.trash, self.run, self.build_logs):
                os.makedirs(path, 0o700, exist_ok=True)
            os.chmod(self.home, 0o700)
        except OSError as error:
            remedy = "set DAYFLY_HOME to a directory of your own with free space"
            raise HostError("make the worker's directories below", self.home, error.errno, remedy) from error

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the only agent of this home. Raises HostError when another one is."""
        path = f"{self.run}/agent.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise HostError(
                "serve from",
                self.home,
                reason="another worker does already",
                remedy="stop it, or give this one a DAYFLY_HOME of its own",
            ) from error
        try:
            yield
        finally:
            os.close(fd)

    def job(self, job_id: str) -> str:
        return f"{self.jobs}/{job_id}"

    def keeper(self, token: str) -> str:
        return f"{self.keepers}/{token}"

    def kept_of(self, job_id: str, attempt: int) -> str:
        """Where an attempt's directory stays when the job wants that (`keep`)."""
        return f"{self.kept}/{job_id}.{attempt}"

    def throw_away(self, path: str) -> None:
        """Move a directory to the trash: constant time, whatever is in it. Fine when it is gone already."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, f"{self.trash}/{secrets.token_hex(8)}")
