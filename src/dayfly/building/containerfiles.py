"""Where a Containerfile is found."""

import os
from collections.abc import Sequence
from pathlib import Path

from dayfly.jobs.errors import ImageError
from dayfly.runtime.syscalls import RESOLVE_IN_ROOT, openat2

NAMES = ("Containerfile", "Dockerfile")
_LARGEST = 1 << 20


def text_of(path: Path) -> str | None:
    """The text of a file; None where there is none. Raises ImageError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"cannot read {path}: {error}") from error


def text_in(directory: Path, name: str | None) -> str:
    """The text of a Containerfile within a stranger's directory, which no link leads out of. Raises ImageError."""
    candidates = (name,) if name else NAMES
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        text = first_text(fd, candidates, _LARGEST, RESOLVE_IN_ROOT)
    finally:
        os.close(fd)
    if text is None:
        raise ImageError(f"there is no {' or '.join(candidates)} in the directory", "build.file names it")
    return text


def first_text(directory: int, names: Sequence[str], most: int, resolve: int) -> str | None:
    """The text of the first of the files that is there, of `most` letters at most; None where none is.

    `resolve`: how links on the way are met (openat2(2)). What is no file holds up nobody. Raises ImageError.
    """
    for name in names:
        try:
            found = openat2(directory, name, os.O_RDONLY | os.O_NONBLOCK, resolve=resolve)
            with open(found, encoding="utf-8") as file:
                text = file.read(most + 1)
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise ImageError(f"cannot read {name} of the directory: {error}") from error
        if len(text) > most:
            raise ImageError(f"{name} is larger than {most >> 10} KiB")
        return text
    return None
