"""`dayfly logs`: what a job wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dayfly.cli.follow import STDERR, STDOUT, Streams
from dayfly.cli.reach import id_argument, quiet_option, reach, url_option
from dayfly.cli.say import print_out

if TYPE_CHECKING:
    from dayfly.queue.logs import LogLine


@click.command(name="logs")
@id_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("--stdout", "only", flag_value=STDOUT, type=int, help="Only the job's stdout.")
@click.option("--stderr", "only", flag_value=STDERR, type=int, help="Only the job's stderr.")
@click.option("--service", metavar="NAME", help="What that service of the job wrote, once the job has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line: time, stream, text.")
@quiet_option
@url_option
def command(
    job_id: str,
    follow: bool,
    timestamps: bool,
    only: int | None,
    service: str | None,
    as_json: bool,
    url: str | None,
) -> None:
    """Print a job's log: its stdout on stdout, its stderr on stderr, byte for byte."""
    streams = Streams(has_times=timestamps)
    with reach(url) as client:
        for line in client.job(job_id).logs(follow=follow, service=service):
            if only in (None, line.stream):
                _print_json(line) if as_json else streams.write(line)


def _print_json(line: LogLine) -> None:
    import json

    stream = {STDOUT: "stdout", STDERR: "stderr"}.get(line.stream, "dayfly")
    print_out(json.dumps({"time": line.time, "stream": stream, "text": line.data.decode(errors="replace")}))
