"""What every command that talks to Redis needs: the options, a client, and jobs by what people call them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dayfly.client import Client

_Command = TypeVar("_Command", bound=Callable[..., Any])


def url_option(command: _Command) -> _Command:
    return click.option("--url", metavar="URL", help="Redis to use (default: configured, else the embedded one).")(
        command
    )


def json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def id_argument(command: _Command) -> _Command:
    return click.argument("job_id", metavar="ID", shell_complete=_complete)(command)


def ids_argument(command: _Command) -> _Command:
    return click.argument("job_ids", metavar="ID...", nargs=-1, required=True, shell_complete=_complete)(command)


def quiet_option(command: _Command) -> _Command:
    return click.option(
        "-q", "--quiet", is_flag=True, expose_value=False, callback=_hush, help="Say nothing but errors."
    )(command)


def reach(url: str | None) -> Client:
    """A client; it starts the embedded stack when no Redis is configured."""
    from dayfly.client import Client

    return Client(url)


def print_json(value: object) -> None:
    import json

    from dayfly.cli.say import print_out

    print_out(json.dumps(value, indent=2))


def _hush(context: click.Context, _: click.Parameter, is_quiet: bool) -> None:
    context.meta["dayfly.quiet"] = is_quiet


def _complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """The latest ids, for the shell; whatever goes wrong, a completion says nothing."""
    from dayfly.jobs.errors import DayflyError

    try:
        with reach(context.params.get("url")) as client:
            return [job.id for job in client.records.ls(limit=50) if job.id.startswith(incomplete.upper())]
    except DayflyError:
        return []
