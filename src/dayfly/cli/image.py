"""`dayfly image`: the images of this host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dayfly.cli.image_keeping import check, prune, remove, usage
from dayfly.cli.image_store import open_store
from dayfly.cli.reach import id_argument, json_option, print_json, quiet_option, reach, url_option
from dayfly.cli.say import print_out, say

if TYPE_CHECKING:
    from dayfly.runtime.images.image import Imported
    from dayfly.runtime.images.packaged import PackagedImage


@click.group(name="image")
def command() -> None:
    """Import, list and remove the images of this host."""


for _each in (usage, prune, check, remove):
    command.add_command(_each)


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
        imported = open_store().import_(source, name, show)
    _tell(imported, as_json=as_json)


@command.command(name="pull")
@click.argument("name")
@click.option("--platform", metavar="OS/ARCH", help="Another platform than this machine's: linux/arm64.")
@json_option
@quiet_option
def pull_image(name: str, platform: str | None, as_json: bool) -> None:
    """Fetch an image from its registry, or what is new of it.

    NAME is [REGISTRY/]NAME[:TAG][@DIGEST]; without a registry it is Docker Hub's. Passwords are those that Docker and
    Podman keep.
    """
    from dayfly.cli.layer_progress import layer_progress
    from dayfly.config import load
    from dayfly.image_settings import registry_settings
    from dayfly.runtime.registry.pulling import pull

    store = open_store()
    with layer_progress() as show:
        pulled = pull(store, name, registry_settings(load()), show, platform=platform)
    _tell(pulled, as_json=as_json)


@command.command(name="push")
@click.argument("name")
@click.argument("destination", required=False)
@json_option
@quiet_option
def push_image(name: str, destination: str | None, as_json: bool) -> None:
    """Send an image to a registry, or what is new of it.

    DESTINATION is [REGISTRY/]NAME[:TAG]; without it the image goes where its name says.
    """
    _push(name, destination, as_json=as_json)


@command.command(name="build")
@click.argument("context", default=".", type=click.Path(path_type=Path))
@click.option("-t", "--tag", "names", multiple=True, metavar="NAME[:TAG]", help="What to call the image; repeatable.")
@click.option("-f", "--file", metavar="FILE|-", help="The Containerfile (default: CONTEXT's, or its Dockerfile).")
@click.option("--target", default="", metavar="STAGE", help="The stage to end with (default: the last one).")
@click.option("--build-arg", "arguments", multiple=True, metavar="NAME[=VALUE]", help="Of an ARG; repeatable.")
@click.option("--secret", "secrets", multiple=True, metavar="id=ID,src=FILE", help="For RUN --mount=type=secret.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A label of the image; repeatable.")
@click.option("--network", default="auto", metavar="auto|none|host", help="What of the network RUN has.")
@click.option("--no-cache", is_flag=True, help="Take every step anew.")
@click.option("--pull", is_flag=True, help="Ask the registries for the images of FROM, though they are here.")
@click.option("--push", is_flag=True, help="Send the image to the registry of its name.")
@click.option("--submit", is_flag=True, help="Have a worker of the queue build it, and print the id of that job.")
@click.option("--queue", metavar="QUEUE", help="The queue of --submit.")
@quiet_option
@url_option
def build_image(context: Path, names: tuple[str, ...], **options: Any) -> None:
    """Build an image from a Containerfile and the directory CONTEXT, and print its digest.

    Each RUN is a job of the worker on this host, whose changes become a layer. A step that was taken before, upon the
    same image and with the same files, is not taken again. With SOURCE_DATE_EPOCH the same inputs give the same digest.
    """
    from dayfly.cli.build import build_here, submit_build

    if options["push"] and not names:
        raise click.UsageError("--push needs -t: the name says where it goes")
    if options["submit"]:
        print_out(submit_build(context, names, options))
        return
    if options["queue"] or options["url"]:
        raise click.UsageError("--queue and --url are for --submit: without it the image is built on this host")
    digest = build_here(context, names, options, open_store).image.digest
    if not options["push"]:
        print_out(digest)
    for name in names if options["push"] else ():
        _push(name, None, as_json=False)


@command.command(name="tag")
@click.argument("source")
@click.argument("name")
def tag_image(source: str, name: str) -> None:
    """Give an image of this host another name."""
    from dayfly.runtime.images.naming import tag

    print_out(tag(open_store(), source, name))


@command.command(name="commit")
@id_argument
@click.argument("name")
@click.option("-m", "--message", default="", metavar="TEXT", help="What the image's history says of it.")
@json_option
@quiet_option
@url_option
def commit_job(job_id: str, name: str, message: str, as_json: bool, url: str | None) -> None:
    """Make an image of what a job that was kept (`--keep always`) has written over its own.

    On the host of its worker. The configuration stays that of the job's image; SOURCE_DATE_EPOCH bounds every time.
    """
    from dayfly.committing import commit
    from dayfly.config import home_directory, load
    from dayfly.worker.kept_jobs import KeptJob

    with reach(url) as client:
        job = KeptJob.find(home_directory(load()), client.job(job_id).id)
    _tell(commit(open_store(), job, name, message), as_json=as_json)


@command.command(name="export")
@click.argument("name")
@click.argument("target", metavar="TARGET[:TAG]")
@quiet_option
def export_image(name: str, target: str) -> None:
    """Write an image as an OCI layout, which skopeo, podman, umoci and `dayfly image import` take.

    TARGET is a directory, or a file that ends in .tar.
    """
    from dayfly.runtime.images.exporting import export

    with _packaged(name) as image:
        export(image, target)
        print_out(image.manifest.digest)


@command.command(name="ls")
@json_option
def list_images(as_json: bool) -> None:
    """List images: name, digest, layers, size, creation."""
    from dayfly.cli.table import print_table, short_time
    from dayfly.jobs.units import format_size

    images = open_store().ls()
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


@command.command(name="history")
@click.argument("name")
@json_option
def show_history(name: str, as_json: bool) -> None:
    """Show how an image came about: its steps, the newest first, and what their layers take."""
    from dayfly.cli.table import print_table
    from dayfly.jobs.units import format_size
    from dayfly.runtime.images.history import history

    steps = history(open_store(), name)
    if as_json:
        print_json([asdict(each) for each in steps])
        return
    rows = [
        (each.created[:19], format_size(each.size_bytes) if each.layer else "-", each.created_by[:100], each.comment)
        for each in steps
    ]
    print_table(("CREATED", "SIZE", "BY", "COMMENT"), rows)


@command.command(name="inspect")
@click.argument("name")
def inspect(name: str) -> None:
    """Print what is known of an image as JSON: digests, configuration, layers."""
    from dayfly.runtime.images import history

    print_json(history.inspect(open_store(), name))


def _tell(imported: Imported, *, as_json: bool) -> None:
    image = imported.image
    for warning in imported.warnings:
        say(f"warning: {warning}")
    if as_json:
        print_json({"name": image.name, "digest": image.digest, "warnings": list(imported.warnings)})
    else:
        print_out(image.digest)
        say(f"{image.name}: {len(image.layers)} layer{'s' if len(image.layers) > 1 else ''}")


def _push(name: str, destination: str | None, *, as_json: bool) -> None:
    from dayfly.cli.layer_progress import layer_progress
    from dayfly.config import load
    from dayfly.image_settings import registry_settings
    from dayfly.runtime.registry.address import parse_address
    from dayfly.runtime.registry.push import mountable, push

    address = parse_address(destination or name)
    with _packaged(name) as image, layer_progress() as show:
        pushed = push(image, address, registry_settings(load()), show, mountable(name, address))
    if as_json:
        print_json({"name": str(address), **asdict(pushed)})
    else:
        print_out(pushed.digest)
        say(f"{address}: {pushed.sent} blobs sent, {pushed.mounted} mounted, {pushed.present} there already")


@contextmanager
def _packaged(name: str) -> Iterator[PackagedImage]:
    """An image of the store, ready to leave; what has to be packed first shows how far it is."""
    from dayfly.cli.progress import progress

    store = open_store()
    with progress() as show, store.packaged(name, show) as image:
        yield image
