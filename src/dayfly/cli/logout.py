"""`dayfly logout`: what `dayfly login` kept, forgotten."""

from __future__ import annotations

import click

from dayfly.cli.reach import quiet_option
from dayfly.cli.say import say


@click.command(name="logout")
@click.argument("registry", default="docker.io")
@quiet_option
def command(registry: str) -> None:
    """Take the name and password of a registry out of ~/.docker/config.json."""
    from dayfly.runtime.registry.address import parse_registry
    from dayfly.runtime.registry.credentials import forget_credentials

    known = parse_registry(registry)
    say(f"{known}: {'forgotten' if forget_credentials(known) else 'nothing was kept of it'}")
