"""Rows for people: a table on a terminal, tab-separated anywhere else."""

import sys
import time
from collections.abc import Iterable, Sequence

from dayfly.cli.say import print_out


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    if sys.stdout.isatty():
        _draw(titles, rows)
        return
    for row in (titles, *rows):
        print_out("\t".join(_plain(cell) for cell in row))


def short_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _draw(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        # Text: what a job calls itself is no markup of ours.
        table.add_row(*(Text(_plain(cell)) for cell in row))
    Console().print(table)


def _plain(cell: str) -> str:
    """A name may hold anything; a table must stay one row a line, and no terminal be steered by it."""
    return "".join(each if each.isprintable() else "?" for each in cell)
