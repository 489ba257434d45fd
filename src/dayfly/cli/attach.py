"""`dayfly attach`: follow a job that runs already."""

import click

from dayfly.cli.reach import id_argument, quiet_option, reach, url_option
from dayfly.cli.say import print_out, say


@click.command(name="attach")
@id_argument
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@click.option("--json", "as_json", is_flag=True, help="Print one Result on stdout; the job's streams go to stderr.")
@quiet_option
@url_option
def command(job_id: str, timestamps: bool, as_json: bool, url: str | None) -> int:
    """Follow a job from its first line and end with its exit code. Ctrl-C detaches: the job goes on, we end with 0."""
    import json

    from dayfly.cli.follow import STDERR, Streams
    from dayfly.cli.following import copy_log
    from dayfly.cli.handing_over import report
    from dayfly.cli.patience import patiently
    from dayfly.companion import Companion
    from dayfly.jobs.state import exit_code_of

    with reach(url) as client:
        job = client.job(job_id)
        streams = Streams(stdout=STDERR if as_json else 1, has_times=timestamps)
        try:
            with Companion(client.producer, [job.id]):
                copy_log(job, streams)
                result = patiently(job.result)
        except KeyboardInterrupt:
            say(f"detached; job {job.id} goes on")
            return 0
    report(result)
    if as_json:
        print_out(json.dumps(result.to_json()))
    return exit_code_of(result)
