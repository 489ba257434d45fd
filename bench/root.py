"""A small root file system with /bin/true and what it needs, the same for all peers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_DIRECTORIES = ("proc", "sys", "dev", "tmp", "run", "etc", "var", "root", "usr/bin", "usr/lib", "usr/lib64", "usr/sbin")


def make_root(root: Path) -> Path:
    """Built of this machine's own files; merged /usr, and an os-release for systemd-nspawn."""
    for directory in _DIRECTORIES:
        (root / directory).mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    shutil.copy("/etc/os-release", root / "etc/os-release")
    for program in ("true", "sh"):
        path = shutil.which(program)
        assert path is not None
        shutil.copy(path, root / "usr/bin" / program)
        for library in _libraries(path):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    return root


def _libraries(program: str) -> list[str]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return [word for line in listed.splitlines() for word in line.split() if word.startswith("/")]
