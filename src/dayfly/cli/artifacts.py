"""`dayfly artifacts`: what a job left behind, listed or downloaded."""

from pathlib import Path

import click

from dayfly.cli.reach import id_argument, json_option, print_json, quiet_option, reach, url_option
from dayfly.cli.say import print_out, say


@click.command(name="artifacts")
@id_argument
@click.option("--out", metavar="DIR", help="Download them below this directory.")
@json_option
@quiet_option
@url_option
def command(job_id: str, out: str | None, as_json: bool, url: str | None) -> None:
    """List a job's artifacts: sha256, size, path. --out DIR downloads them."""
    from dataclasses import asdict

    with reach(url) as client:
        job = client.job(job_id)
        entries = job.artifacts()
        if out is not None:
            say(f"{len(job.download(Path(out)))} artifacts in {out}")
    if as_json:
        print_json([asdict(entry) for entry in entries])
    elif out is None:
        for entry in entries:
            print_out(f"{entry.sha256}\t{entry.size_bytes}\t{entry.path}")
