"""`dayfly retry`: a finished job once more."""

import click

from dayfly.cli.reach import id_argument, reach, url_option
from dayfly.cli.say import print_out


@click.command(name="retry")
@id_argument
@url_option
def command(job_id: str, url: str | None) -> None:
    """Run a finished job again, under a new id, which is printed."""
    with reach(url) as client:
        print_out(client.job(job_id).retry().id)
