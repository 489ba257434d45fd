"""`dayfly image du`, `prune`, `fsck` and `rm`: what the images of this host take, and what of it may go."""

from __future__ import annotations

from dataclasses import asdict

import click

from dayfly.cli.image_store import home, open_keeping, open_store
from dayfly.cli.reach import json_option, print_json, quiet_option
from dayfly.cli.say import complain, say


@click.command(name="du")
@json_option
def usage(as_json: bool) -> None:
    """Say what the store takes, each layer counted once."""
    from dayfly.cli.table import print_table
    from dayfly.jobs.units import format_size
    from dayfly.worker.build_leftovers import cache_bytes
    from dayfly.worker.places import Places

    used, caches = open_keeping().usage(), cache_bytes(Places(home()))
    if as_json:
        print_json({**asdict(used), "build_cache_bytes": caches})
        return
    rows = [
        ("images", str(used.images), "", ""),
        ("layers", str(used.layers), format_size(used.layers_bytes), f"{format_size(used.idle_bytes)} used by no job"),
        ("packed layers", str(used.packed), format_size(used.packed_bytes), "fetched or packed again when wanted"),
        ("caches of builds", "", format_size(caches), "`dayfly image prune --build-cache` frees it"),
        ("unneeded", "", format_size(used.unneeded_bytes), "`dayfly image prune` frees it"),
    ]
    print_table(("WHAT", "COUNT", "SIZE", ""), rows)


@click.command(name="prune")
@click.option("-a", "--all", "with_named", is_flag=True, help="Images with names too, unless a job uses them.")
@click.option("--packed", "with_packed", is_flag=True, help="The packed forms of layers too.")
@click.option("--build-cache", "with_steps", is_flag=True, help="What builds have made on their way too.")
@quiet_option
def prune(with_named: bool, with_packed: bool, with_steps: bool) -> None:
    """Remove images without a name, and all that nothing needs."""
    from dayfly.jobs.units import format_size
    from dayfly.worker.build_leftovers import prune_caches
    from dayfly.worker.places import Places

    keeping = open_keeping()  # in a user's namespace, where the files of steps can be taken away
    freed = prune_caches(Places(home())) if with_steps else 0
    freed += keeping.prune(with_named=with_named, with_packed=with_packed, with_steps=with_steps)
    say(f"{format_size(freed)} freed")


@click.command(name="fsck")
@json_option
@quiet_option
def check(as_json: bool) -> None:
    """Compare everything in the store with its digest. Ends with 1 when something is wrong."""
    from dayfly.cli.progress import progress
    from dayfly.runtime.images.checking import Check

    with progress() as show:
        found = list((checked := Check(open_store(), show)).run())
    if as_json:
        print_json({"layers_right": checked.layers, "findings": [asdict(each) for each in found]})
    else:
        for each in found:
            say(f"{'wrong' if each.is_fault else 'unknown'}: {each.what}")
        say(f"{checked.layers} layers are right, {sum(each.is_fault for each in found)} things are wrong")
    if any(each.is_fault for each in found):
        raise SystemExit(1)


@click.command(name="rm")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@quiet_option
def remove(names: tuple[str, ...]) -> None:
    """Remove images by name. Layers that another image uses stay."""
    from dayfly.jobs.errors import ImageNotFound
    from dayfly.jobs.units import format_size
    from dayfly.worker.in_use import layers_in_use

    store, missing = open_store(), False
    for name in names:
        try:
            say(f"{name}: {format_size(store.remove(name, lambda: layers_in_use(home())))} freed")
        except ImageNotFound as error:
            complain(str(error))
            missing = True
    if missing:
        raise SystemExit(125)
