"""`dayfly ls`: the jobs that Redis knows."""

from __future__ import annotations

import time
from typing import Any

import click

from dayfly.cli.reach import json_option, print_json, reach, url_option


@click.command(name="ls")
@click.option("--state", metavar="STATE", help="waiting, delayed, queued, starting, running, collecting or finished.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--label", metavar="NAME[=VALUE]", help="Only those that ask for this label.")
@click.option("--name", metavar="NAME", help="Only those called so.")
@click.option("--since", metavar="DURATION", help="Only those submitted within the last so long.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, latest first."
)
@json_option
@url_option
def command(as_json: bool, url: str | None, **filters: Any) -> None:
    """List jobs, the latest first."""
    from dayfly.cli.table import print_table

    with reach(url) as client:
        records = client.records.ls(**filters)
