"""`dayfly run`: one job now, its log here, its exit code ours."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from dayfly.cli.job_flags import documents, job_flags
from dayfly.cli.reach import reach, url_option
from dayfly.cli.say import print_out, say

if TYPE_CHECKING:
    from dayfly.client import Client
    from dayfly.jobs.spec import JobSpec


@click.command(name="run", context_settings={"allow_interspersed_args": False})
@job_flags
@click.option("--out", metavar="DIR", default=".", help="Where artifacts go (default: the current directory).")
@click.option("-d", "--detach", is_flag=True, help="Print the id and leave; the job goes on without us.")
@click.option("--json", "as_json", is_flag=True, help="Print one Result on stdout; the job's streams go to stderr.")
@click.option("--result", metavar="FILE", help="Write the Result to a file.")
@click.option("-t", "--timestamps", is_flag=True, help="Put the time before each line.")
@url_option
@click.pass_context
def command(context: click.Context, /, **flags: Any) -> int:
    """Run a job now, follow its log, and end with its exit code.

    dayfly run [OPTIONS] [--] COMMAND [ARGUMENT]...

    The current directory is the job's /workspace, copy-on-write. `dayfly help directory`, `help streams` and
    `help exit-codes` say more.
    """
    context.meta["dayfly.quiet"] = flags["quiet"]
    specs = [_read(document, flags) for document in documents(flags, unstated={"network": "auto"})]
    _check_targets(specs, flags)
    with reach(flags["url"]) as client:
        if flags["detach"]:
            return _detach(client, specs)
        from dayfly.cli.following import follow_all, follow_one

        follow = follow_one if len(specs) == 1 else follow_all
        return follow(client, specs, flags)


def _read(document: dict[str, Any], flags: dict[str, Any]) -> JobSpec:
    from dayfly import directory
    from dayfly.jobs.door import read_job

    if "dir" not in document and not flags["no_dir"]:
        here, note = directory.default()
        if note:
            say(note)
        document = {**document, "dir": here} if here else document
    return read_job(directory.placed(document))


def _detach(client: Client, specs: list[JobSpec]) -> int:
    say(f"using {client.address.describe()}")
    for spec in specs:
        print_out(client.enqueue(spec).id)
    return 0


def _check_targets(specs: list[JobSpec], flags: dict[str, Any]) -> None:
    """Before an hour of work, not after it: can result and artifacts be written where they shall go?"""
    if flags["detach"] and (flags["as_json"] or flags["result"] is not None):
        given = "--json" if flags["as_json"] else "--result"
        raise click.UsageError(
            f"give --detach or {given}, not both: a detached job has no result yet (`dayfly wait --json ID` has it)"
        )
    if flags["result"] is not None:
        _check_file(flags["result"])
    if any(spec.artifacts.is_wanted for spec in specs):
        _check_out(flags["out"])


def _check_file(result: str) -> None:
    parent = os.path.dirname(os.path.abspath(result))
    if os.path.exists(result):
        is_writable = os.access(result, os.W_OK) and not os.path.isdir(result)
    else:
        is_writable = os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)
    if not is_writable:
        raise click.UsageError(f"--result {result}: no file that you may write, in a directory that is there")


def _check_out(out: str) -> None:
    there = os.path.abspath(out)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        raise click.UsageError(f"--out {out}: {there} is not a directory that you may write")
