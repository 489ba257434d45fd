"""`dayfly secret`: values that jobs get and nobody reads in Redis."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from dayfly.cli.reach import json_option, print_json, quiet_option, reach, url_option
from dayfly.cli.say import say


@click.group(name="secret")
def command() -> None:
    """Set, list and remove secrets. A value is sealed for the workers before it leaves this machine."""


@command.command(name="set")
@click.argument("name")
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="Queue whose jobs may have it; repeatable.")
@click.option("--from-file", type=click.Path(path_type=Path), metavar="FILE", help="Take a file, byte for byte.")
@click.option("--to", "recipients", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="A worker's public key; repeatable. Default: the configured ones.")  # fmt: skip
@url_option
@quiet_option
def set_secret(
    name: str, queues: tuple[str, ...], from_file: Path | None, recipients: tuple[Path, ...], url: str | None
) -> None:
    """Set NAME to what standard input has (typed unseen on a terminal), for jobs of the queue `default`.

    Of standard input one line end at the end is left out, as `echo` writes it. Never an argument: other users could
    read it with `ps`.
    """
    from dayfly.jobs.spec import DEFAULT_QUEUE

    value = _value(name, from_file)
    with reach(url) as client:
        secret = client.secrets.set(name, value, queues=queues or (DEFAULT_QUEUE,), recipients=recipients)
    say(f"{name}: for jobs of {', '.join(secret.queues)}; sealed for {', '.join(secret.sealed)}")


@command.command(name="ls")
@json_option
@url_option
def list_secrets(as_json: bool, url: str | None) -> None:
    """List secrets: name, queues, the keys they are sealed for, when they were set. Never a value."""
    from dayfly.cli.table import print_table, short_time

    with reach(url) as client:
        secrets = client.secrets.ls()
    if as_json:
        rows = [
            (each.name, each.queues, list(each.sealed), each.set_at, each.signature is not None) for each in secrets
        ]
        print_json([dict(zip(("name", "queues", "keys", "set_at", "is_signed"), row, strict=True)) for row in rows])
        return
    print_table(
        ("NAME", "QUEUES", "KEYS", "SIGNED", "SET"),
        [
            (each.name, ",".join(each.queues), ",".join(each.sealed), "yes" if each.signature else "no",
             short_time(each.set_at))
            for each in secrets
        ],
    )  # fmt: skip


@command.command(name="rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@url_option
def remove(names: tuple[str, ...], url: str | None) -> None:
    """Remove secrets. Jobs that run keep what they were given."""
    from dayfly.jobs.errors import DayflyError

    with reach(url) as client:
        gone = client.secrets.rm(names)
    if missing := [name for name in names if name not in gone]:
        raise DayflyError(f"no secret {', '.join(missing)}", remedy="`dayfly secret ls` lists them")


def _value(name: str, file: Path | None) -> bytes:
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
    if sys.stdin.isatty():
        typed: str = click.prompt(f"Value of {name}", hide_input=True, err=True)
        return typed.encode()
    value = sys.stdin.buffer.read()
    return value.removesuffix(b"\n").removesuffix(b"\r")
