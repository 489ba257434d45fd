"""`dayfly down`: stop the embedded stack."""

import click

from dayfly.cli.say import say


@click.command(name="down")
@click.option("--now", is_flag=True, help="Do not wait for running jobs: put them back into the queue.")
def command(now: bool) -> None:
    """Stop the embedded Redis and worker and wait until both are gone. Running jobs are finished first."""
    from dayfly.config import home_directory, load
    from dayfly.embedded import Stack
    from dayfly.worker.bridging import leave_unused_bridge

    stack = Stack(home_directory(load()))
    if stack.is_up() and not now:
        say("waiting for running jobs (`dayfly down --now` puts them back into the queue)")
    ended = stack.stop(now=now)
    leave_unused_bridge(stack.home)
    say(f"stopped: {', '.join(ended)}" if ended else "nothing was running")
