"""The progress of a long step: a bar on a terminal, a line now and then anywhere else."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from dayfly.cli.say import is_quiet, say

Show = Callable[[int, int | None, str], None]
_SECONDS_BETWEEN_LINES = 10.0


@contextlib.contextmanager
def progress() -> Iterator[Show]:
    """Yields a function that is told the bytes done, the bytes in all if known, and what is being done."""
    if is_quiet():
        yield lambda done, total, what: None
    elif sys.stderr.isatty():
        with _bar() as show:
            yield show
    else:
        yield lines()


@contextlib.contextmanager
def _bar() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
    from rich.text import Text

    columns = (TextColumn("dayfly:", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int | None, what: str) -> None:
            bar.update(task, completed=done, total=total, description=Text(what).plain)

        yield show


def lines() -> Show:
    """For anything but a terminal."""
    from dayfly.jobs.units import format_size

    next_at = time.monotonic() + _SECONDS_BETWEEN_LINES

    def show(done: int, total: int | None, what: str) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + _SECONDS_BETWEEN_LINES
            say(f"{what}: {format_size(done)}" + (f" of {format_size(total)}" if total else ""))

    return show
