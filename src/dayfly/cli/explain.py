"""`dayfly explain`: why a job ended as it did."""

import click

from dayfly.cli.reach import id_argument, json_option, print_json, reach, url_option
from dayfly.cli.say import print_out


@click.command(name="explain")
@id_argument
@json_option
@url_option
def command(job_id: str, as_json: bool, url: str | None) -> None:
    """Say in full why a job ended as it did: limits, memory, disk, pressure, attempts."""
    from dayfly.jobs.verdict import explain

    with reach(url) as client:
        result = client.job(job_id).status()
    lines = list(explain(result))
    if as_json:
        print_json({"lines": lines, "result": result.to_json()})
    else:
        print_out("\n".join(lines))
