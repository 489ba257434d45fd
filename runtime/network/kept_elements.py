"""What the policy holds of single jobs, beside it in files: when somebody flushes it, it comes back with all of it.

    run/network/INDEX.list     the job's own list: lost, it would reach what the operator lets every job reach
    run/network/INDEX.ports    the ports that lead to its services

INDEX is the job's place. Its files go with the next job of the place; those of places without a link count for nothing.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

LIST, PORTS = "list", "ports"


def keep(home: str, index: int, kind: str, script: str) -> None:
    """Raises OSError."""
    path = _path(home, index, kind)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    new = path.with_suffix(f".{kind}.new")
    new.write_text(script, encoding="ascii")
    new.rename(path)


def drop(home: str, index: int, *kinds: str) -> None:
    for kind in kinds:
        with contextlib.suppress(FileNotFoundError):  # most jobs have none
            os.unlink(_path(home, index, kind))


def of_places(home: str, places: Collection[int]) -> str:
    """The commands of the jobs at these places. Raises OSError."""
    directory = Path(f"{home}/run/network")
    if not directory.is_dir():
        return ""
    found = sorted(path for path in directory.iterdir() if path.suffix in (f".{LIST}", f".{PORTS}"))
    return "".join(path.read_text(encoding="ascii") for path in found if int(path.stem) in places)


def _path(home: str, index: int, kind: str) -> Path:
    return Path(f"{home}/run/network/{index}.{kind}")
