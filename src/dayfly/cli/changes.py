"""`dayfly changes`: what a job wrote over its image."""

from __future__ import annotations

import click

from dayfly.cli.reach import id_argument, json_option, print_json, reach, url_option
from dayfly.cli.say import print_out


@click.command(name="changes")
@id_argument
@json_option
@url_option
def command(job_id: str, as_json: bool, url: str | None) -> None:
    """List what a job that was kept (`--keep`) has added (A), changed (C) and deleted (D) in its root.

    On the host of its worker.
    """
    from dataclasses import asdict

    from dayfly.config import home_directory, load
    from dayfly.runtime.images.changes import changes
    from dayfly.worker.kept_jobs import KeptJob

    with reach(url) as client:
        job = KeptJob.find(home_directory(load()), client.job(job_id).id)
    with job.root() as upper, job.image() as image:
        skip = {f"/{path}" for path in job.not_its_own(upper, image)}
        found = [each for each in changes(upper, image) if not skip.intersection(_with_parents(each.path))]
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        print_out("\n".join(f"{each.kind} {each.path}" for each in found))


def _with_parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 2]) for count in range(len(parts) - 1)]
