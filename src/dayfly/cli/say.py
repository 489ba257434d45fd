"""Dayfly's own lines: on stderr, each with the prefix `dayfly: `, so that nobody takes them for the job's."""

import os
import sys

import click

from dayfly.jobs.errors import DayflyError


def say(text: str) -> None:
    """Tell something that `-q` silences."""
    if not is_quiet():
        complain(text)


def complain(text: str) -> None:
    """Tell something that must be seen: an error."""
    lines = "".join(f"dayfly: {line}\n" for line in text.splitlines() or [""])
    sys.stdout.flush()
    try:
        write_all(2, lines.encode(errors="replace"))
    except BrokenPipeError:
        raise
    except OSError:
        return  # a full disk, say: there is nobody left to tell


def print_out(text: str) -> None:
    """Print on stdout what must not be lost in silence. Raises BrokenPipeError, DayflyError."""
    sys.stdout.flush()
    write_out(1, f"{text}\n".encode())


def write_out(fd: int, chunk: bytes) -> None:
    """write_all() for what must not be lost in silence. Raises BrokenPipeError, DayflyError."""
    try:
        write_all(fd, chunk)
    except BrokenPipeError:
        raise
    except OSError as error:
        name = "stdout" if fd == 1 else "stderr"
        raise DayflyError(f"cannot write to {name}: {error.strerror}", "is its disk full?") from error


def write_all(fd: int, chunk: bytes) -> None:
    """Write every byte. The file may be set non-blocking by whoever shares it with us (a terminal, a CI's pipe)."""
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            _await_writable(fd)


def _await_writable(fd: int) -> None:
    import select

    select.select([], [fd], [])


def is_quiet() -> bool:
    context = click.get_current_context(silent=True)
    return bool(context and context.meta.get("dayfly.quiet"))
