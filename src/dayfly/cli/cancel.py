"""`dayfly cancel`: stop jobs."""

import click

from dayfly.cli.reach import ids_argument, reach, url_option


@click.command(name="cancel")
@ids_argument
@click.option("--now", is_flag=True, help="Without the grace period.")
@url_option
def command(job_ids: tuple[str, ...], now: bool, url: str | None) -> None:
    """Stop jobs, queued or running. A finished job stays as it is."""
    with reach(url) as client:
        for job in [client.job(job_id) for job_id in job_ids]:
            job.cancel(now=now)
