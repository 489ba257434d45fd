"""Frozen directories: what `submit --dir` gives a job, so that a later edit never reaches it.

    bundles/<digest>/tree/          the copy, used in place as the layer below /workspace
    bundles/sources/<key>.json      what the last freeze of a directory saw of each file, and which bundle it made
    bundles/staging/, bundles/lock  where copies are made, and the lock    (staging.py)

The digest names paths, types, modes, owners, sizes, times of files, contents and link targets; the times of directories
are kept and not part of it, because an editor's temporary file moves them. A file that the last freeze of the same
directory saw with the same inode, size, times, mode and owner is not read again: it becomes a hard link into that
bundle. (Only the same path is ever linked: two names of one inode in a tree would change what `tar` makes of it.)

A bundle's own time stamp says when a freeze last gave its digest out. A job's record or a queued job keeps a bundle:
`unused` and `remove` spare what was given out a short while ago, since its job may not be enqueued yet.
"""

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Collection

from dayfly.jobs.errors import HostError, StoreError
from dayfly.runtime.freezing import Freezing, Seen
from dayfly.runtime.ignore import IgnoreError
from dayfly.runtime.staging import Staging, delete
from dayfly.runtime.syscalls import syncfs

_VERSION = 1
_FORGET_SECONDS = 30 * 86400


def freeze(source: str | os.PathLike[str], bundles_root: str | os.PathLike[str]) -> str:
    """Copy the directory `source`, less what its .dayflyignore names, and return the copy's digest ("sha256:…").

    Symlinks are copied, never followed; devices, FIFOs and sockets are left out, and so is the DAYFLY_HOME around
    `bundles_root` where it lies within. Raises HostError.
    """
    source, root = os.path.realpath(source), os.path.abspath(bundles_root)
    try:
        return _freeze(source, root)
    except RecursionError as error:
        raise HostError("freeze the directory", source, reason="it is hundreds of directories deep") from error
    except IgnoreError as error:
        raise HostError("freeze the directory", source, reason=str(error)) from error
    except OSError as error:
        remedy = "free some space on the disk of DAYFLY_HOME" if error.errno == errno.ENOSPC else None
        where = os.path.join(source, os.fsdecode(error.filename)) if error.filename else source
        raise HostError("freeze the directory", where, error.errno, remedy) from error


def path_of(digest: str, bundles_root: str | os.PathLike[str]) -> str:
    """The absolute path of the bundle's tree. Raises StoreError when this host does not have it."""
    path = f"{_place(digest, os.path.abspath(bundles_root))}/tree"
    if not os.path.isdir(path):
        raise StoreError(f"the frozen directory {digest} is not on this host", "submit the job again")
    return path


def unused(bundles_root: str | os.PathLike[str], keep: Collection[str], older_than_seconds: float) -> tuple[str, ...]:
    """The digests that are not in `keep` and that no freeze gave out in the last `older_than_seconds`."""
    root, before = os.path.abspath(bundles_root), time.time() - older_than_seconds
    with contextlib.suppress(FileNotFoundError):  # nothing was ever frozen here
        found = [f"sha256:{name}" for name in os.listdir(root) if len(name) == 64]
        return tuple(digest for digest in found if digest not in keep and _given_out(digest, root) < before)
    return ()


def remove(digest: str, bundles_root: str | os.PathLike[str], older_than_seconds: float = 0.0) -> bool:
    """Delete a bundle unless a freeze gave it out in the last `older_than_seconds`; whether it was deleted."""
    root = os.path.abspath(bundles_root)
    staging = Staging(root)
    with staging.locked(exclusive=True):
        is_idle = _given_out(digest, root) < time.time() - older_than_seconds
        if is_idle:
            with contextlib.suppress(FileNotFoundError):  # removed by another
                staging.take_away(_place(digest, root))
        leftovers = staging.leftovers()
    delete(leftovers)
    _forget_old_sources(root)
    return is_idle


def _freeze(source: str, root: str) -> str:
    os.makedirs(f"{root}/sources", 0o700, exist_ok=True)
    os.chmod(root, 0o700)
    staging = Staging(root)
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        freezing = Freezing(fd, _seen_before(source, root), skip=os.stat(os.path.dirname(root)))
        digest = freezing.digest_if_unchanged()
        if digest is None or not _give_out(digest, root, staging):
            digest = _copy(freezing, root, staging)
    finally:
        os.close(fd)
    _note(source, root, digest, freezing.seen())
    return digest


def _copy(freezing: Freezing, root: str, staging: Staging) -> str:
    with staging.stage() as stage:
        tree = f"{stage}/bundle/tree"
        os.makedirs(tree)
        digest = freezing.copy(tree)
        fd = os.open(stage, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syncfs(fd)  # a bundle is never compared with its digest again: after a power cut it must be whole
        finally:
            os.close(fd)
        if not _give_out(digest, root, staging):
            with staging.locked(exclusive=True):
                if not os.path.isdir(_place(digest, root)):
                    os.rename(f"{stage}/bundle", _place(digest, root))
    return digest


def _give_out(digest: str, root: str, staging: Staging) -> bool:
    """Whether the bundle is there; it stays there for a while then, because its time stamp is now."""
    with staging.locked(exclusive=False):
        try:
            os.utime(_place(digest, root))
        except FileNotFoundError:
            return False
    return True


def _given_out(digest: str, root: str) -> float:
    try:
        return os.stat(_place(digest, root)).st_mtime
    except FileNotFoundError:
        return 0.0


def _place(digest: str, root: str) -> str:
    name = digest.removeprefix("sha256:")
    if len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        raise StoreError(f"{digest[:80]!r} is not the digest of a frozen directory")
    return f"{root}/{name}"


def _sources_file(source: str, root: str) -> str:
    return f"{root}/sources/{hashlib.sha256(os.fsencode(source)).hexdigest()}.json"


def _seen_before(source: str, root: str) -> Seen:
    """What the last freeze saw; nothing when there was none or its record cannot be read."""
    try:
        with open(_sources_file(source, root), encoding="ascii") as file:
            record = json.load(file)
        if record["version"] != _VERSION:
            return Seen()
        files = {os.fsencode(path): tuple(stamp) for path, stamp in record["files"].items()}
        return Seen(f"{_place(record['bundle'], root)}/tree", files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StoreError):
        return Seen()


def _note(source: str, root: str, digest: str, seen: Seen) -> None:
    path = _sources_file(source, root)
    temporary = f"{path}.{os.getpid()}.tmp"
    files = {os.fsdecode(name): stamp for name, stamp in seen.files.items()}
    with open(temporary, "w", encoding="ascii") as file:
        json.dump({"version": _VERSION, "bundle": digest, "files": files}, file, separators=(",", ":"))
    os.rename(temporary, path)


def _forget_old_sources(root: str) -> None:
    with contextlib.suppress(FileNotFoundError), os.scandir(f"{root}/sources") as entries:
        for entry in entries:
            if entry.stat().st_mtime < time.time() - _FORGET_SECONDS:
                os.unlink(entry.path)
