"""Key files: read with their modes checked, written so that nobody else can read them.

A secret key that somebody else may read or replace is not used, as ssh has it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from dayfly.jobs.errors import DayflyError
from dayfly.jobs.key_text import Key, parse_key

_LARGEST_BYTES = 4096
_OTHERS = 0o077
_OTHERS_WRITE = 0o022


def read_key(path: Path) -> Key:
    """The key in a file. Raises DayflyError: not there, no key, or a secret one that is not ours alone."""
    try:
        # O_NONBLOCK: a FIFO must not hold us up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DayflyError(
            f"cannot read the key {path}: {error.strerror}", remedy="`dayfly key generate` makes one"
        ) from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise DayflyError(f"cannot read the key {path}: it is not a file")
        text = os.read(fd, _LARGEST_BYTES).decode("ascii", errors="replace")
    finally:
        os.close(fd)
    try:
        key = parse_key(text)
    except ValueError as error:
        raise DayflyError(f"cannot use the key {path}: it {error}") from error
    _check_mode(path, facts, key)
    return key


def read_keys(paths: Iterable[Path]) -> tuple[Key, ...]:
    """The keys of files, and of all files in directories (by name, those with a dot in front left out)."""
    return tuple(read_key(file) for path in paths for file in key_files(path))


def key_files(path: Path) -> list[Path]:
    """The files that `path` stands for. Raises DayflyError."""
    try:
        return sorted(each for each in path.iterdir() if not each.name.startswith(".")) if path.is_dir() else [path]
    except OSError as error:
        raise DayflyError(f"cannot read the keys in {path}: {error.strerror}") from error


def write_key(path: Path, key: Key) -> None:
    """Write a new file, 0600 when the key is secret. Raises DayflyError; never replaces one."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if key.kind.is_secret else 0o644)
    except FileExistsError as error:
        raise DayflyError(
            f"cannot write the key {path}: there is a file already",
            remedy="give it another name: what was signed or sealed with the old key needs that one",
        ) from error
    except OSError as error:
        raise DayflyError(f"cannot write the key {path}: {error.strerror}") from error
    with open(fd, "w", encoding="ascii") as file:
        file.write(f"# Dayfly key {key.id}{': keep it to yourself' if key.kind.is_secret else ''}\n{key.line()}\n")


def _check_mode(path: Path, facts: os.stat_result, key: Key) -> None:
    forbidden = _OTHERS if key.kind.is_secret else _OTHERS_WRITE
    if facts.st_mode & forbidden:
        can = "be read or changed" if key.kind.is_secret else "be changed"
        raise DayflyError(
            f"will not use the key {path}: its mode {stat.S_IMODE(facts.st_mode):04o} lets it {can} by others",
            remedy=f"chmod {'0600' if key.kind.is_secret else '0644'} {path}",
        )
    if facts.st_uid not in (0, os.geteuid()):
        raise DayflyError(f"will not use the key {path}: it belongs to uid {facts.st_uid}", remedy=f"chown root {path}")
