"""`dayfly explain`: why a job ended as it did."""

import click

from dayfly.cli.reach import id_argument, reach, url_option


@click.command(name="explain")
@id_argument
@url_option
def command(job_id: str, url: str | None) -> None:
    """Say in full why a job ended as it did: limits, memory, disk, pressure, attempts."""
    from dayfly.jobs.verdict import explain

    with reach(url) as client:
        for line in explain(client.job(job_id).status()):
            click.echo(line)
