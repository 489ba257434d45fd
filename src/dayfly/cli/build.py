"""What `dayfly image build` is told, and a worker on this host for it to build with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dayfly.building.builder import build
from dayfly.building.containerfiles import NAMES, text_of
from dayfly.building.request import BuildRequest
from dayfly.building.workshop import Workshop
from dayfly.cli.following import follow_step
from dayfly.cli.reach import reach
from dayfly.cli.say import say
from dayfly.client import Client
from dayfly.committing import source_date_epoch
from dayfly.config import home_directory, load
from dayfly.embedded import Stack
from dayfly.image_settings import registry_settings
from dayfly.jobs.build import Build
from dayfly.jobs.errors import ImageError
from dayfly.jobs.spec import DEFAULT_PULL, PullPolicy
from dayfly.runtime.images.image import Imported
from dayfly.runtime.images.naming import tag
from dayfly.runtime.images.store import ImageStore


def build_here(
    context: Path, names: Sequence[str], options: Mapping[str, Any], open_store: Callable[[], ImageStore]
) -> Imported:
    """Raises ContainerfileError, DayflyError."""
    settings = load()
    home = home_directory(settings)
    request = BuildRequest(
        text=_text(options["file"], context),
        context=context,
        name=names[0] if names else "",
        target=options["target"],
        arguments=_arguments(options["arguments"]),
        secrets=_secrets(options["secrets"]),
        labels=_pairs(options["labels"], "--label"),
        network=options["network"],
        has_cache=not options["no_cache"],
        pull=PullPolicy.ALWAYS if options["pull"] else PullPolicy(settings.text("images.pull") or DEFAULT_PULL),
    )
    stack = Stack(home)
    stack.ensure()
    with Client(stack.url) as client:
        store = open_store()
        shop = Workshop(
            store,
            home,
            request,
            registry_settings(settings),
            lambda spec: follow_step(client, spec),
            say,
            source_date_epoch(),
        )
        with shop:
            built = build(shop)
        for name in names[1:]:
            tag(store, built.image.digest, name)
        return built


def submit_build(context: Path, names: Sequence[str], options: Mapping[str, Any]) -> str:
    """The id of the job that builds. Raises DayflyError."""
    if len(names) > 1:
        raise click.UsageError("--submit takes one -t: `dayfly image tag` gives more names")
    if options["secrets"]:
        raise click.UsageError("--secret cannot be together with --submit: a build of the queue has no secrets yet")
    wanted = Build(
        name=names[0] if names else "",
        containerfile=_text(options["file"], context),
        target=options["target"],
        args=_arguments(options["arguments"]),
        labels=_pairs(options["labels"], "--label"),
        use_cache=not options["no_cache"],
        push=options["push"],
        epoch=source_date_epoch(),
    )
    document: dict[str, Any] = {"build": wanted.to_document(), "dir": str(context), "network": options["network"]}
    if options["queue"]:
        document["queue"] = options["queue"]
    if options["pull"]:
        document["pull"] = PullPolicy.ALWAYS.value
    with reach(options["url"]) as client:
        return client.submit(document).id


def _text(file: str | None, context: Path) -> str:
    if file == "-":
        return sys.stdin.read()
    candidates = [Path(file)] if file else [context / each for each in NAMES]
    for path in candidates:
        if (text := text_of(path)) is not None:
            return text
    raise ImageError(f"there is no {' or '.join(map(str, candidates))}", "-f names the Containerfile")


def _arguments(given: Sequence[str]) -> dict[str, str]:
    """NAME alone is the caller's own variable, if it has one."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _pairs(given: Sequence[str], flag: str) -> dict[str, str]:
    for each in given:
        if "=" not in each:
            raise click.UsageError(f"{flag} {each}: write NAME=VALUE")
    return {name: value for name, _, value in (each.partition("=") for each in given)}


def _secrets(given: Sequence[str]) -> dict[str, Path]:
    found = {}
    for each in given:
        options = dict(part.partition("=")[::2] for part in each.split(","))
        name, source = options.get("id"), options.get("src") or options.get("source")
        if not name:
            raise click.UsageError(f"--secret {each}: write id=ID,src=FILE")
        path = Path(source or name)
        if not path.is_file():
            raise click.UsageError(f"--secret {each}: there is no file {path}")
        found[name] = path
    return found
