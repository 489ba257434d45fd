"""Dayfly's own lines: on stderr, each with the prefix `dayfly: `, so that nobody takes them for the job's."""

import os
import sys

import click


def say(text: str) -> None:
    """Tell something that `-q` silences."""
    if not is_quiet():
        complain(text)


def complain(text: str) -> None:
    """Tell something that must be seen: an error."""
    lines = "".join(f"dayfly: {line}\n" for line in text.splitlines() or [""])
    sys.stdout.flush()
    write_all(2, lines.encode(errors="replace"))


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
