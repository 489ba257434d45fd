"""What a job with `keep` has left on this host: its record and its disk, with all that it wrote over its image."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dayfly.jobs.errors import StoreError
from dayfly.runtime.images.below import Below, open_directory
from dayfly.runtime.inputs import NAME_LOOKUP
from dayfly.runtime.kept_disk import mounted
from dayfly.worker import jobfiles, joblock
from dayfly.worker.places import Places
from dayfly.worker.record import Record

# What every container mounts on; a disk has them from the beginning.
_POINTS = ("proc", "sys", "dev", "workspace")
_UPPER = b"root/upper"
_LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class KeptJob:
    """One attempt's directory."""

    directory: str
    record: Record

    @classmethod
    def find(cls, home: Path, job_id: str) -> "KeptJob":
        """The last attempt of the job that was kept on this host. Raises StoreError."""
        kept = Places(home).kept
        attempts = sorted(_attempts(kept, job_id))
        for attempt in reversed(attempts):
            directory = f"{kept}/{job_id}.{attempt}"
            record = jobfiles.read_record(directory)
            if record is not None and os.path.exists(f"{directory}/{jobfiles.DISK}"):
                return cls(directory, record)
        remedy = "submit it with --keep always, and ask on the host of its worker"
        raise StoreError(f"no disk of job {job_id} was kept below {kept}", remedy)

    @classmethod
    def await_(cls, home: Path, job_id: str, seconds: float = 60.0) -> "KeptJob":
        """The same once its keeper is gone, and with it the last mount of the disk; its result may be there before.

        Raises StoreError.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = cls.find(home, job_id)
                if joblock.holder(found.directory) is None:
                    return found
            except StoreError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_LOOK_SECONDS)

    @contextmanager
    def root(self) -> Iterator[int]:
        """A descriptor of what it wrote over its image, a layer in overlay's form. Raises HostError, OSError."""
        with mounted(f"{self.directory}/{jobfiles.DISK}") as disk:
            upper = open_directory(disk, _UPPER)
            try:
                yield upper
            finally:
                os.close(upper)

    @contextmanager
    def image(self) -> Iterator[Below]:
        """The layers that it ran on."""
        with ExitStack() as stack:
            fds = []
            for layer in self.record.container.shape.image_layers:
                fds.append(os.open(layer, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                stack.callback(os.close, fds[-1])
            yield Below(fds)

    def not_its_own(self, upper: int, image: Below) -> list[str]:
        """The paths in its upper that it did not write: mount points, where nothing was put and the image has none."""
        plan = self.record.container
        stubs = [path.lstrip("/") for path in NAME_LOOKUP]
        stubs += [mount.target.strip("/") for mount in plan.mounts]
        stubs += [secret.file.strip("/") for secret in plan.secrets if secret.file]
        paths = dict.fromkeys(ancestor for stub in stubs for ancestor in _with_parents(stub))
        empty = [path for path in sorted(paths, reverse=True) if _is_stub(upper, image, path, set(paths))]
        return [*_POINTS, *([] if _has_entries(upper, "tmp") else ["tmp"]), *empty]


def _attempts(kept: str, job_id: str) -> Iterator[int]:
    try:
        names = os.listdir(kept)
    except FileNotFoundError:
        return
    for name in names:
        own, _, attempt = name.rpartition(".")
        if own == job_id and attempt.isdecimal():
            yield int(attempt)


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _is_stub(upper: int, image: Below, path: str, stubs: set[str]) -> bool:
    """Whether there is an empty file, or a directory of nothing but stubs, that the image has not."""
    if image.find(tuple(map(os.fsencode, path.split("/")))) is not None:
        return False
    try:
        directory = open_directory(upper, os.fsencode(path))
    except (FileNotFoundError, NotADirectoryError):
        return _is_empty_file(upper, path)
    try:
        return all(f"{path}/{name}" in stubs for name in os.listdir(directory))
    finally:
        os.close(directory)


def _is_empty_file(upper: int, path: str) -> bool:
    try:
        return os.stat(path, dir_fd=upper, follow_symlinks=False).st_size == 0
    except FileNotFoundError:
        return False


def _has_entries(upper: int, name: str) -> bool:
    directory = open_directory(upper, os.fsencode(name))
    try:
        return bool(os.listdir(directory))
    finally:
        os.close(directory)
