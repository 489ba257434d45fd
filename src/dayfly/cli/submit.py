"""`dayfly submit`: put jobs into the queue and print their ids."""

from __future__ import annotations

from typing import Any

import click

from dayfly.cli.job_flags import documents, job_flags
from dayfly.cli.reach import reach, url_option
from dayfly.cli.say import print_out, say


@click.command(name="submit", context_settings={"allow_interspersed_args": False})
@job_flags
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a job instead of its bare id.")
@url_option
@click.pass_context
def command(context: click.Context, /, **flags: Any) -> None:
    """Put a job into the queue and print its id, alone, on stdout.

    dayfly submit [OPTIONS] [--] COMMAND [ARGUMENT]...

    A job gets no directory unless --dir is given; that one is frozen first, so that later edits do not reach the job.
    """
    import json

    context.meta["dayfly.quiet"] = flags["quiet"]
    described = documents(flags)
    with reach(flags["url"]) as client:
        if client.address.stack is None and any("dir" in each for each in described):
            say("the frozen directory is kept on this host: only a worker here can run the job yet")
        jobs = [client.submit(described[0])] if len(described) == 1 else client.submit_many(described)
        for job in jobs:
            print_out(json.dumps({"id": job.id}) if flags["as_json"] else job.id)
