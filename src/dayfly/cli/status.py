"""`dayfly status`: what is known of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dayfly.cli.reach import id_argument, json_option, print_json, reach, url_option
from dayfly.cli.say import print_out

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dayfly.jobs.result import Result


@click.command(name="status")
@id_argument
@json_option
@url_option
def command(job_id: str, as_json: bool, url: str | None) -> None:
    """Show what is known of a job. --json prints its Result."""
    with reach(url) as client:
        result = client.job(job_id).status()
    if as_json:
        print_json(result.to_json())
    else:
        for title, text in _rows(result):
            print_out(f"{title:<10} {text}")


def _rows(result: Result) -> Iterator[tuple[str, str]]:
    from dayfly.cli.table import short_time
    from dayfly.jobs.units import format_duration, format_size

    yield "id", result.id
    if result.name:
        yield "name", result.name
    yield "state", result.describe() if result.is_finished else str(result.state)
    if result.is_finished:
        yield "exit code", str(result.exit_status)
    yield "queue", str(result.queue)
    if result.host:
        yield "host", result.host
    if result.image:
        yield "image", f"{result.image.ref} {result.image.digest or ''}".rstrip()
    if result.timings.queued_at:
        yield "queued", short_time(result.timings.queued_at)
    for name, seconds in result.timings.durations().items():
        if seconds is not None:
            yield name.removesuffix("_seconds"), format_duration(seconds)
    if result.usage.memory_peak_bytes is not None:
        yield "memory", f"{format_size(result.usage.memory_peak_bytes)} at most"
    if len(result.attempts) > 1:
        yield "attempts", str(len(result.attempts))
    if result.artifacts:
        yield "artifacts", str(len(result.artifacts))
    for warning in result.warnings:
        yield "warning", warning
