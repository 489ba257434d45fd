"""The file store: artifacts' blobs under their digest, each job's whole log, and what a job keeps until when.

blobs/sha256/ab/<digest>    content, written by keepers (worker/blob.py)
logs/<job id>.zst           the frames of worker/logfile.py, compressed: one zstd frame for each attempt, in their order
logs/<job id>@<service>.zst  the same of one of its services
kept/<job id>.json          which blobs a job's artifacts need, and until when
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from dayfly.jobs.errors import StoreError
from dayfly.worker.blob import blob_path
from dayfly.worker.logfile import Frame, decode_all

_CHUNK = 1 << 20
_YOUNG_SECONDS = 24 * 3600.0  # a blob may wait this long for the job that names it


def service_log_id(job_id: str, service: str) -> str:
    """What stands for a job's id where the log of one of its services is meant."""
    return f"{job_id}@{service}"


class FileStore:
    """A store in a directory of this host. Several processes may use it at once: every file appears by rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logs_exist = False

    def open_blob(self, digest: str) -> BinaryIO:
        """Raises StoreError when the content is not there (never stored, or expired)."""
        try:
            return open(blob_path(str(self.path), digest), "rb")
        except OSError as error:
            raise StoreError(
                f"cannot read artifact {digest[:12]} from the store {self.path}: {error.strerror}"
            ) from error

    def put_log(self, job_id: str, frames: Iterable[Frame]) -> str | None:
        """Stores the whole log of one attempt after those of the attempts before it, and returns where they are.

        None when no attempt wrote anything. Stored twice, it is there once. Raises StoreError.
        """
        first, rest = _peek(frames)
        target = self.log_path(job_id)
        try:
            is_there = target.exists()
            if first is not None and not (is_there and first in self._sound_log(job_id)):
                self._append_log(target, first, rest)
        except OSError as error:
            raise StoreError(f"cannot write the log {target}: {error.strerror}") from error
        return target.as_uri() if is_there or first is not None else None

    def read_log(self, job_id: str) -> Iterator[Frame]:
        """The logs of all attempts, frame by frame; none when the job wrote nothing. Raises StoreError."""
        zstd = _zstd()
        try:
            with zstd.open(self.log_path(job_id), "rb") as file:
                yield from decode_all(iter(lambda: file.read(_CHUNK), b""))
        except FileNotFoundError:
            return
        except (OSError, EOFError, zstd.ZstdError) as error:
            raise StoreError(f"cannot read the log of {job_id} from {self.path}: {error}") from error

    def log_path(self, job_id: str) -> Path:
        return self.path / "logs" / f"{job_id}.zst"

    def _sound_log(self, job_id: str) -> Iterator[Frame]:
        """What is there of the attempts before. A broken log is deleted: what is put behind it could not be read.

        To look for an attempt's first frame is enough, as its nanoseconds are no other's. It may be there: an agent
        that ended between storing a log and telling the queue has its successor store it again.
        """
        try:
            yield from self.read_log(job_id)
        except StoreError:
            self.log_path(job_id).unlink(missing_ok=True)

    def _append_log(self, target: Path, first: Frame, rest: Iterator[Frame]) -> None:
        self._make_logs()
        with _written_whole(target) as file:
            with contextlib.suppress(FileNotFoundError), open(target, "rb") as earlier:  # not there: the first attempt
                shutil.copyfileobj(earlier, file, _CHUNK)
            _compress(file, first, rest)

    def keep(self, job_id: str, digests: Iterable[str], expires_at: float | None) -> None:
        """Holds a job's blobs until `expires_at` (unix seconds; None = as long as the store lives)."""
        target = self.path / "kept" / f"{job_id}.json"
        content = json.dumps({"expires_at": expires_at, "digests": sorted(set(digests))}).encode()
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _written_whole(target) as file:
                file.write(content)
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror}") from error

    def expire(self, now: float | None = None, log_seconds: float = 30 * 24 * 3600.0) -> int:
        """Deletes what nothing holds any more: blobs whose jobs have all expired, logs that are too old.

        Returns the number of files deleted. Blobs younger than a day stay: their job may not have finished yet.
        """
        moment = time.time() if now is None else now
        held = self._held(moment)
        blobs = (path for path in self.path.glob("blobs/sha256/*/*") if path.name not in held)
        deleted = sum(_delete_older(path, moment - _YOUNG_SECONDS) for path in blobs)
        deleted += sum(_delete_older(path, moment - _YOUNG_SECONDS) for path in self.path.glob("blobs/tmp-*"))
        return deleted + sum(_delete_older(path, moment - log_seconds) for path in self.path.glob("logs/*"))

    def _held(self, moment: float) -> set[str]:
        held: set[str] = set()
        for path in self.path.glob("kept/*.json"):
            expires_at, digests = _read_kept(path)
            if expires_at is not None and expires_at <= moment:
                path.unlink(missing_ok=True)
            else:
                held |= digests
        return held

    def _make_logs(self) -> None:
        if not self._logs_exist:
            (self.path / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._logs_exist = True


def _read_kept(path: Path) -> tuple[float | None, set[str]]:
    try:
        kept = json.loads(path.read_bytes())
        return kept["expires_at"], set(kept["digests"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, set()  # a file that no writer of ours left, or one that is gone: it holds nothing


def _delete_older(path: Path, moment: float) -> bool:
    with contextlib.suppress(FileNotFoundError):  # another worker's expiry was faster
        if path.stat().st_mtime < moment:
            path.unlink()
            return True
    return False


@contextlib.contextmanager
def _written_whole(target: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name when the block ends, or not at all."""
    temporary = f"{target}.tmp-{os.getpid()}"
    try:
        with open(temporary, "wb", opener=_private) as file:
            yield file
        os.rename(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # it may not have been made
            os.unlink(temporary)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _peek(frames: Iterable[Frame]) -> tuple[Frame | None, Iterator[Frame]]:
    iterator = iter(frames)
    return next(iterator, None), iterator


def _compress(file: BinaryIO, first: Frame, rest: Iterator[Frame]) -> None:
    compressor = _zstd().ZstdCompressor(level=3)
    file.write(compressor.compress(first.encode()))
    for frame in rest:
        file.write(compressor.compress(frame.encode()))
    file.write(compressor.flush())


def _zstd() -> Any:
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]  # Python 3.14
    except ImportError:
        from backports import zstd
    return zstd
