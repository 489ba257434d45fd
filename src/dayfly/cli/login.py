"""`dayfly login`: a password for a registry, tried and kept where Docker keeps it."""

from __future__ import annotations

import sys

import click

from dayfly.cli.reach import quiet_option
from dayfly.cli.say import say


@click.command(name="login")
@click.argument("registry", default="docker.io")
@click.option("-u", "--username", metavar="NAME", help="Who to be there; asked for when not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin, and ask nobody.")
@quiet_option
def command(registry: str, username: str | None, password_stdin: bool) -> None:
    """Try a name and a password at a registry, and keep them for pulls and pushes.

    They go into ~/.docker/config.json (DOCKER_CONFIG), as `docker login` writes it: encoded, not encrypted, for nobody
    else to read; or to the credential helper that it names. A worker uses those of its own user.
    """
    from dayfly.config import load
    from dayfly.image_settings import registry_settings
    from dayfly.runtime.registry.address import host_of, parse_registry
    from dayfly.runtime.registry.credentials import Credentials, save_credentials
    from dayfly.runtime.registry.session import try_out

    host = parse_registry(registry)
    if password_stdin and username is None:
        raise click.UsageError("--password-stdin needs --username")
    user = username or click.prompt("Username", err=True)
    given = Credentials(user, _password(password_stdin))
    try_out(host, host_of(host), registry_settings(load()), given)
    say(f"{host}: kept in {save_credentials(host, given)}")


def _password(is_piped: bool) -> str:
    if is_piped:
        return sys.stdin.read().rstrip("\r\n")
    answer: str = click.prompt("Password", hide_input=True, err=True)
    return answer
