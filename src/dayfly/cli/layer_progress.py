"""The progress of an image's layers: a bar for each on a terminal, a line now and then anywhere else."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

from dayfly.cli.progress import lines
from dayfly.cli.say import is_quiet

ShowLayer = Callable[[str, int, int], None]
_DIGEST_CHARACTERS = 12


@contextlib.contextmanager
def layer_progress() -> Iterator[ShowLayer]:
    """Yields a function that is told a layer's digest, the bytes of it that are here, and those it has.

    Threads may call it.
    """
    if is_quiet():
        yield lambda digest, done, total: None
    elif sys.stderr.isatty():
        with _bars() as show:
            yield show
    else:
        yield _sum()


@contextlib.contextmanager
def _bars() -> Iterator[ShowLayer]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    text = TextColumn("dayfly: {task.description}")
    with Progress(text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def show(digest: str, done: int, total: int) -> None:
            if digest not in tasks:
                tasks[digest] = bars.add_task(digest.removeprefix("sha256:")[:_DIGEST_CHARACTERS], total=total)
            bars.update(tasks[digest], completed=done)

        yield show


def _sum() -> ShowLayer:
    show_line, lock = lines(), threading.Lock()
    done_of: dict[str, int] = {}
    total_of: dict[str, int] = {}

    def show(digest: str, done: int, total: int) -> None:
        with lock:
            done_of[digest], total_of[digest] = done, total
            whole = sum(1 for each, size in total_of.items() if done_of[each] >= size)
            show_line(sum(done_of.values()), sum(total_of.values()), f"{whole} of {len(total_of)} layers")

    return show
