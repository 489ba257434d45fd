"""What paths and globs in a document may look like. Each check returns the path to use or raises ValueError."""

from __future__ import annotations

from dayfly.jobs.mounts import TMPFS
from dayfly.jobs.names import check_text, shown

MAX_PATH_BYTES = 4095  # PATH_MAX, less the final NUL
MAX_PATTERN_LENGTH = 1000

_KERNEL_TREES = ("/proc", "/sys", "/dev")
_CHARACTER_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "console", "ptmx")
_OWN_DEVICES = (*_CHARACTER_DEVICES, "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr")
_GLOB_SEPARATORS = str.maketrans(dict.fromkeys("{},()|", "/"))


def check_path(text: str) -> str:
    """An absolute path without `..`, with doubled slashes, `.` and a final slash taken out."""
    check_text(text)
    if not text.startswith("/"):
        raise ValueError(f"must be an absolute path, got {shown(text)}")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ValueError(f"must not contain .., got {shown(text)}")
    if len(text.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must have at most {MAX_PATH_BYTES} bytes, got {len(text.encode())}")
    return "/" + "/".join(parts)


def check_mount_source(text: str) -> str:
    """An absolute path, or the word `tmpfs`."""
    return text if text == TMPFS else check_path(text)


def check_workdir(text: str) -> str:
    """A working directory; nothing below /proc, or a descriptor's link would lead out (CVE-2024-21626)."""
    path = check_path(text)
    if is_below(path, "/proc") or is_below(path, "/dev/fd") or is_below(path, "/sys"):
        raise ValueError(f"must not lie below /proc, /sys or /dev/fd, got {shown(text)}")
    return path


def check_target(text: str) -> str:
    """Where a mount goes in the container: not the root, and not over what the container is made of."""
    path = check_path(text)
    if path == "/":
        raise ValueError("must not be /: a mount cannot take the place of the root")
    if any(is_below(path, tree) for tree in _KERNEL_TREES):
        raise ValueError(f"must not lie below /proc, /sys or /dev, got {shown(text)}")
    return path


def check_device_path(text: str) -> str:
    """A device of the host."""
    path = check_path(text)
    if not path.startswith("/dev/"):
        raise ValueError(f"must lie below /dev, got {shown(text)}")
    return path


def check_device_target(text: str) -> str:
    """Where a device goes in the container: not over what every container has there."""
    path = check_device_path(text)
    if path.split("/")[2] in _OWN_DEVICES:
        raise ValueError(f"is every container's own, got {shown(text)}")
    return path


def check_directory(text: str) -> str:
    """A directory as a person names it to the client: relative or not."""
    check_text(text)
    if not text:
        raise ValueError("must not be empty")
    if len(text.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"must have at most {MAX_PATH_BYTES} bytes, got {len(text.encode())}")
    return text


def check_pattern(text: str) -> str:
    """A glob of artifacts: relative to /workspace or absolute; no way up, not even quoted or in a brace."""
    check_text(text)
    if not text.strip():
        raise ValueError("must not be empty")
    if len(text) > MAX_PATTERN_LENGTH:
        raise ValueError(f"must have at most {MAX_PATTERN_LENGTH} characters, got {len(text)}")
    if ".." in text.replace("\\", "").translate(_GLOB_SEPARATORS).split("/"):
        raise ValueError(f"must not contain .., got {shown(text)}")
    return text


def is_below(path: str, tree: str) -> bool:
    """Whether `path` is `tree` or lies in it, both written as check_path() writes them."""
    return path == tree or path.startswith(tree + "/")
