"""`dayfly up`: start the embedded stack and keep it."""

import click

from dayfly.cli.say import say


@click.command(name="up")
def command() -> None:
    """Start the embedded Redis and worker, and keep them until `dayfly down`."""
    from dayfly.config import home_directory, load
    from dayfly.embedded import Stack

    stack = Stack(home_directory(load()))
    was_up = stack.is_up()
    stack.ensure()
    stack.keep()
    say(f"{'is up already' if was_up else 'up'}: {stack.url}; log: {stack.run / 'worker.log'}")
