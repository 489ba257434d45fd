"""`dayfly retry`: a finished job once more."""

import click

from dayfly.cli.reach import id_argument, json_option, print_json, reach, url_option
from dayfly.cli.say import print_out


@click.command(name="retry")
@id_argument
@json_option
@url_option
def command(job_id: str, as_json: bool, url: str | None) -> None:
    """Run a finished job again, under a new id, which is printed."""
    with reach(url) as client:
        job = client.job(job_id)
        new = job.retry()
    if as_json:
        print_json({"id": new.id, "retry_of": job.id})
    else:
        print_out(new.id)
