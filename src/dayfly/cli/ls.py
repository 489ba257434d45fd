"""`dayfly ls`: the jobs that Redis knows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from dayfly.cli.reach import json_option, reach, url_option
from dayfly.cli.say import print_out

if TYPE_CHECKING:
    from dayfly.queue.job_record import JobRecord

_LONGEST_COMMAND = 60
_STATES = ("waiting", "delayed", "queued", "starting", "running", "collecting", "finished")


@click.command(name="ls")
@click.option("--state", type=click.Choice(_STATES), help="Only jobs in this state.")
@click.option("--queue", metavar="NAME", help="Only of this queue.")
@click.option("--label", metavar="NAME[=VALUE]", help="Only those that ask for this label.")
@click.option("--name", metavar="NAME", help="Only those called so.")
@click.option("--since", metavar="DURATION", help="Only those submitted within the last so long.")
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="At most so many, latest first."
)
@json_option
@url_option
def command(as_json: bool, url: str | None, since: str | None, **filters: Any) -> None:
    """List jobs, the latest first."""
    import json

    from dayfly.cli.table import print_table

    with reach(url) as client:
        records = client.records.ls(since=_moment(since), **filters)
    if as_json:
        for record in records:
            print_out(json.dumps(record.result.to_json()))
    else:
        print_table(("ID", "NAME", "STATE", "QUEUE", "AGE", "COMMAND"), [_row(record) for record in records])


def _moment(since: str | None) -> float | None:
    from dayfly.jobs.units import parse_duration

    try:
        return None if since is None else time.time() - parse_duration(since)
    except ValueError as error:
        raise click.UsageError(f"--since: {error}") from error


def _row(record: JobRecord) -> tuple[str, ...]:
    from dayfly.jobs.units import format_duration

    age = format_duration(time.time() - record.submitted_at) if record.submitted_at else ""
    state = str(record.outcome or record.state)
    return record.id, record.name or "", state, record.queue, age, _command(record.document)


def _command(document: Mapping[str, Any]) -> str:
    import shlex

    words = document.get("command")
    if isinstance(words, list):
        text = shlex.join(str(word) for word in words)
    else:
        text = str(document.get("script") or "").strip().partition("\n")[0]
    return text if len(text) <= _LONGEST_COMMAND else text[: _LONGEST_COMMAND - 1] + "…"
