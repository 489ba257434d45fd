"""`dayfly wait`: until jobs are finished, then end as `run` would."""

import click

from dayfly.cli.reach import ids_argument, json_option, quiet_option, reach, url_option
from dayfly.cli.say import print_out


@click.command(name="wait")
@ids_argument
@json_option
@quiet_option
@url_option
def command(job_ids: tuple[str, ...], as_json: bool, url: str | None) -> int:
    """Wait for jobs to finish; end with the job's exit code, of several with the largest."""
    import json

    from dayfly.cli.handing_over import report
    from dayfly.cli.patience import patiently
    from dayfly.companion import Companion
    from dayfly.jobs.state import exit_code_of

    worst = 0
    with reach(url) as client:
        jobs = [client.job(job_id) for job_id in job_ids]
        with Companion(client.producer, [job.id for job in jobs]):
            for job in jobs:
                result = patiently(job.result)
                worst = max(worst, exit_code_of(result))
                report(result)
                if as_json:
                    print_out(json.dumps(result.to_json()))
    return worst
