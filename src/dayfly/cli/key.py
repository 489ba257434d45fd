"""`dayfly key`: the keys that jobs are signed with and secrets are sealed for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dayfly.cli.reach import json_option, print_json, quiet_option
from dayfly.cli.say import say

if TYPE_CHECKING:
    from dayfly.config import Settings
    from dayfly.jobs.key_text import Key

_KINDS = {"hmac": "hmac-sha256", "ed25519": "ed25519-secret", "x25519": "x25519-secret"}


@click.group(name="key")
def command() -> None:
    """Make and show keys: of signed jobs (hmac, ed25519) and of secrets (x25519)."""


@command.command(name="generate")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.argument("file", type=click.Path(path_type=Path))
@quiet_option
def generate(kind: str, file: Path) -> None:
    """Write a new key to FILE, mode 0600, and print its id.

    hmac: clients and workers share it, and each can sign. ed25519: workers need the public half only. x25519: opens
    secrets; clients seal them for its public half.
    """
    from dayfly.jobs.key_text import KeyKind
    from dayfly.jobs.key_text import generate as make
    from dayfly.queue.key_files import write_key

    key = make(KeyKind(_KINDS[kind]))
    write_key(file, key)
    click.echo(key.id)
    if key.kind is KeyKind.HMAC:
        say(f"{file}: copy it to the workers, for [worker] trusted_keys; whoever has it can sign")
    else:
        say(f"{file}: `dayfly key public {file}` prints the half that others need")


@command.command(name="public")
@click.argument("file", type=click.Path(path_type=Path))
def public(file: Path) -> None:
    """Print the public half of the key in FILE, as a key file of its own."""
    from dayfly.queue.key_files import read_key

    try:
        half = read_key(file).public()
    except ValueError as error:
        raise click.UsageError(f"{file}: {error}") from error
    click.echo(f"# Dayfly key {half.id}\n{half.line()}")


@command.command(name="ls")
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys of the configuration: what is signed with, what a worker here trusts and opens secrets with."""
    from dayfly.cli.table import print_table
    from dayfly.config import load

    rows = [(use, key.kind.value, key.id, str(file)) for use, key, file in _configured(load())]
    if as_json:
        print_json([dict(zip(("use", "kind", "id", "file"), row, strict=True)) for row in rows])
    else:
        print_table(("USE", "KIND", "ID", "FILE"), rows)


def _configured(settings: Settings) -> Iterator[tuple[str, Key, Path]]:
    """Each key with its use and file. Raises DayflyError for one that must not be used."""
    from dayfly.key_uses import USES
    from dayfly.queue.key_files import key_files, read_key

    for use in USES:
        for path in use.paths(settings):
            for file in key_files(path):
                yield use.word, read_key(file), file
