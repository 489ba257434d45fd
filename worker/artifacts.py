"""Collects a job's artifacts into the store, from directories that the job has written: hostile input throughout.

Runs in the keeper after the job's last process is dead and before its layers go, so nothing moves under it. It still
trusts no name (overlay_walk.py) and no number of them: whatever is kept here is bounded, so that exit.json, in which it
goes, is one that can be read back. Regular files only. Keepers import this file: lean.
"""

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dayfly.runtime.syscalls import RESOLVE_ONE_TREE, openat2
from dayfly.runtime.view import View
from dayfly.worker.blob import Unreadable, copy_into
from dayfly.worker.exit import Artifact
from dayfly.worker.overlay_walk import UNSEEN, Found, overlay_xattr, walk, why_not
from dayfly.worker.record import ArtifactRules

if TYPE_CHECKING:
    from re import Pattern

    from dayfly.worker.masking import Masker

MAX_FILES = 100_000
MAX_BYTES = 64 << 30
MAX_PATHS_BYTES = 8 << 20  # of all artifacts together: with the rest of exit.json within what is read back
MAX_ENTRIES = 5_000_000  # looked at: hard links cost a job no inodes
MAX_WARNINGS = 50
MAX_WARNING = 4000
MAX_NAME = 200  # letters of a path in a warning
MAX_NAMED = 20  # of the files that the store did not take

_LOOK_SECONDS = 0.1

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


@dataclass(frozen=True)
class Tree:
    """One overlay of the container: where it is mounted, its upper, and the lower that belongs to the job if any.

    `view`: what the job may read of the lower; None: whatever we may.
    """

    prefix: str
    upper_fd: int
    lower_fd: int | None = None
    view: View | None = None


@dataclass(frozen=True)
class Collected:
    artifacts: tuple[Artifact, ...]
    warnings: tuple[str, ...]


def collect(
    rules: ArtifactRules,
    trees: Sequence[Tree],
    store: str,
    reason_to_stop: Callable[[], str | None],
    masker: "Masker | None" = None,
) -> Collected:
    """Copies every file that `rules` select into the store at `store`. `masker` knows the job's secrets, if it has any.

    `reason_to_stop` is asked for each directory, each MiB and ten times a second: once it gives one, what has not been
    taken is left, and a warning says so. What the store does not take is named in a warning with the reason.
    """
    collection = _Collection(rules, store, reason_to_stop, masker)
    why: tuple[str, ...]
    try:
        for tree in trees:
            collection.take_tree(tree)
    except _Stopped as stop:
        why = (f"artifacts: stopped after {len(collection.artifacts)} files: {stop}",)  # whatever else there is to say
    else:
        why = ()
        collection.warn_of_unmatched()
    artifacts = sorted(collection.artifacts, key=lambda each: each.path)
    return Collected(tuple(artifacts), (*why, *collection.not_stored(), *collection.bounded_warnings()))


class _Stopped(Exception):  # noqa: N818 - it ends a walk, it is no fault
    """A bound of the whole collection is reached."""


class _Skipped(Exception):  # noqa: N818 - it leaves out one file, it is no fault
    """One file is left out, for the reason in the message."""


@dataclass
class _Collection:
    rules: ArtifactRules
    store: str
    reason_to_stop: Callable[[], str | None]
    masker: "Masker | None" = None
    artifacts: list[Artifact] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)  # why the store did not take which: the first ones
    refusals: Counter[str] = field(default_factory=Counter)
    left_out: int = 0
    entries: int = 0
    next_look: float = 0.0
    paths_bytes: int = 0
    bytes_taken: int = 0
    view: View | None = None  # of the lower that is walked

    def __post_init__(self) -> None:
        import re

        self.include = [re.compile(pattern, re.DOTALL) for pattern in self.rules.include]
        self.exclude = [re.compile(pattern, re.DOTALL) for pattern in self.rules.exclude]
        self.matched = [False] * len(self.include)

    def take_tree(self, tree: Tree) -> None:
        lower_fd = tree.lower_fd if self.include else None
        self.view = tree.view
        prefix = "" if tree.prefix == "/workspace" else tree.prefix.rstrip("/") + "/"
        try:
            for found in walk(tree.upper_fd, lower_fd, prefix, self):
                if self.selects(found):
                    self.take(found)
        except OSError as error:
            self.warn(f"artifacts in {tree.prefix} left out: {error.strerror}")

    def selects(self, found: Found) -> bool:
        hits = [number for number, pattern in enumerate(self.include) if self.matches(pattern, found.path)]
        if not hits and not (self.rules.changed and found.is_upper):
            return False
        for number in hits:
            self.matched[number] = True
        return not any(self.matches(pattern, found.path) for pattern in self.exclude)

    def matches(self, pattern: "Pattern[str]", path: str) -> bool:
        self.look()
        return pattern.match(path) is not None

    def take(self, found: Found) -> None:
        if len(self.artifacts) >= MAX_FILES:
            raise _Stopped(f"the limit is {MAX_FILES} files")
        if self.paths_bytes + len(os.fsencode(found.path)) > MAX_PATHS_BYTES:
            raise _Stopped(f"the limit is {MAX_PATHS_BYTES >> 20} MiB of paths")
        try:
            _check_name(found.path)
            artifact = _store_file(found, self)
        except _Skipped as reason:
            self.warn(f"artifact {self.shown(found.path)} left out: {reason}")
            return
        except OSError as error:  # of the store: a smaller file may still fit
            self.refuse(error.strerror or str(error), found.path)
            return
        self.bytes_taken += artifact.size_bytes
        self.paths_bytes += len(os.fsencode(found.path))
        self.artifacts.append(artifact)

    def refuse(self, why: str, path: str) -> None:
        self.refusals[why] += 1
        if self.refusals[why] <= MAX_NAMED:
            self.refused.setdefault(why, []).append(path)

    def enters(self, directory: str) -> bool:
        """Whether a file that the rules could select may lie in `directory` (its path ends in a slash)."""
        is_absolute = directory.startswith("/")
        return self.rules.changed or any(
            is_absolute == start.startswith("/") and (directory.startswith(start) or start.startswith(directory))
            for start in map(_slashed, self.rules.within)
        )

    def shows(self, lower_fd: int) -> bool:
        """Whether the job could have read it itself: the keeper can read more."""
        return self.view is None or self.view.shows(lower_fd)

    def count_entry(self) -> None:
        self.entries += 1
        if self.entries > MAX_ENTRIES:
            raise _Stopped(f"the limit is {MAX_ENTRIES} names looked at")
        self.look()

    def look(self) -> None:
        """Ask now and then whether to stop: this is called for each name and each pattern."""
        now = time.monotonic()
        if now >= self.next_look:
            self.check_time()
            self.next_look = now + _LOOK_SECONDS

    def check_time(self) -> None:
        reason = self.reason_to_stop()
        if reason is not None:
            raise _Stopped(reason)

    def shown(self, path: str) -> str:
        """Masked before it is quoted or cut: of what is left of a value nobody would know that it is one."""
        masked = path if self.masker is None else self.masker.text(path)
        return ascii(masked) if len(masked) <= MAX_NAME else f"{masked[:MAX_NAME]!a}..."

    def warn(self, text: str) -> None:
        if len(self.warnings) < MAX_WARNINGS:
            self.warnings.append(_bounded(text))
        else:
            self.left_out += 1

    def warn_of_unmatched(self) -> None:
        for label, was_matched in zip(self.rules.labels or self.rules.include, self.matched, strict=True):
            if not was_matched:
                self.warn(f"artifact pattern {label!a} matches no file{_reach(label)}")

    def not_stored(self) -> Iterator[str]:
        for why, paths in self.refused.items():
            named = _bounded(", ".join(map(self.shown, paths)))
            more = f" and {self.refusals[why] - len(paths)} more" if self.refusals[why] > len(paths) else ""
            yield f"artifacts: {named}{more} cannot be stored in {self.store}: {why}"

    def bounded_warnings(self) -> tuple[str, ...]:
        more = [f"artifacts: {self.left_out} more warnings left out"] if self.left_out else []
        return (*self.warnings, *more)


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_WARNING else f"{text[:MAX_WARNING]}..."


def _check_name(path: str) -> None:
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in path):
        raise _Skipped("its name is not UTF-8")
    if any(ord(letter) < 0x20 or 0x7F <= ord(letter) < 0xA0 for letter in path):
        raise _Skipped("its name holds a control character")


def _reach(label: str) -> str:
    """What somebody who expected files of the image or of a mount should know."""
    is_elsewhere = label.startswith("/") and not _slashed(label).startswith("/workspace/")
    return "; outside /workspace only what the job wrote is collected" if is_elsewhere else ""


def _slashed(start: str) -> str:
    return start.rstrip("/") + "/" if start.rstrip("/") else start


def _store_file(found: Found, collection: _Collection) -> Artifact:
    try:
        fd = openat2(found.parent_fd, found.name, _FILE, resolve=RESOLVE_ONE_TREE)
    except OSError as error:
        raise _Skipped(why_not(error)) from error
    try:
        status = os.fstat(fd)
        _check_file(fd, status, collection)
        if not found.is_upper and not collection.shows(fd):
            raise _Skipped(UNSEEN)
        digest = copy_into(collection.store, fd, status.st_size, collection.check_time)
    except Unreadable as error:
        raise _Skipped(str(error)) from error
    finally:
        os.close(fd)
    return Artifact(found.path, status.st_size, digest, stat.S_IMODE(status.st_mode) & 0o777, status.st_mtime)


def _check_file(fd: int, status: os.stat_result, collection: _Collection) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _Skipped("it is no regular file")
    if collection.bytes_taken + status.st_size > MAX_BYTES:
        raise _Skipped(f"with it there would be more than {MAX_BYTES >> 30} GiB of artifacts")
    # A copy-up of the attributes alone has the size but no content of its own (overlayfs, "metacopy").
    if status.st_blocks == 0 and status.st_size and overlay_xattr(fd, "metacopy") is not None:
        raise _Skipped("only its attributes were changed, and its content lies in the image")
