"""`dayfly image`: the images of this host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dayfly.cli.reach import json_option, print_json, quiet_option
from dayfly.cli.say import print_out, say

if TYPE_CHECKING:
    from dayfly.runtime.images.store import ImageStore


@click.group(name="image")
def command() -> None:
    """Import, list and remove the images of this host."""


@command.command(name="import")
@click.argument("source")
@click.argument("name")
@json_option
@quiet_option
def import_image(source: str, name: str, as_json: bool) -> None:
    """Store an image under NAME[:TAG].

    SOURCE is a directory, a tarball of a root file system (also compressed), an OCI layout (directory or tarball) or
    what `docker save` wrote.
    """
    from dayfly.cli.progress import progress

    with progress() as show:
        imported = _store().import_(source, name, show)
    image = imported.image
    for warning in imported.warnings:
        say(f"warning: {warning}")
    if as_json:
        print_json({"name": image.name, "digest": image.digest, "warnings": list(imported.warnings)})
    else:
        print_out(image.digest)
        say(f"{image.name}: {len(image.layers)} layer{'s' if len(image.layers) > 1 else ''}")


@command.command(name="ls")
@json_option
def list_images(as_json: bool) -> None:
    """List images: name, digest, layers, size, creation."""
    from dataclasses import asdict

    from dayfly.cli.table import print_table, short_time
    from dayfly.jobs.units import format_size

    images = _store().ls()
    if as_json:
        print_json([asdict(each) for each in images])
    else:
        print_table(
            ("NAME", "DIGEST", "LAYERS", "SIZE", "CREATED"),
            [
                (each.name, each.digest, str(each.layers), format_size(each.size_bytes), short_time(each.created))
                for each in images
            ],
        )


@command.command(name="rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@quiet_option
def remove(names: tuple[str, ...]) -> None:
    """Remove images by name. Layers that another image uses stay."""
    from dayfly.jobs.units import format_size
    from dayfly.worker.in_use import layers_in_use

    store = _store()
    for name in names:
        say(f"{name}: {format_size(store.remove(name, lambda: layers_in_use(_home())))} freed")


def _store() -> ImageStore:
    from dayfly.runtime.images.store import ImageStore
    from dayfly.runtime.user_namespace import enter

    home = _home()
    enter()  # the files of layers belong to ids that only there can be given, and taken away
    return ImageStore(home)


def _home() -> Path:
    from dayfly.config import home_directory, load

    return home_directory(load())
