"""Where a Containerfile is found."""

import os
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
        for each in candidates:
            try:
                found = openat2(fd, each, os.O_RDONLY | os.O_NONBLOCK, resolve=RESOLVE_IN_ROOT)
                with open(found, encoding="utf-8") as file:
                    text = file.read(_LARGEST + 1)
                if len(text) > _LARGEST:
                    raise ImageError(f"{each} is larger than {_LARGEST >> 20} MiB")
                return text
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise ImageError(f"cannot read {each} of the directory: {error}") from error
    finally:
        os.close(fd)
    raise ImageError(f"there is no {' or '.join(candidates)} in the directory", "build.file names it")
