"""`dayfly config`: the values in force, each with where it was set, and the file's JSON Schema."""

import click

from dayfly.cli.say import print_out


@click.group(name="config")
def command() -> None:
    """Show the configuration and where each value comes from."""


@command.command(name="show")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(as_json: bool) -> None:
    """Print each value and where it was set: environment, file and line, or default."""
    from dayfly.config import load

    settings = load()
    rows = [(name, _shown(found.value), found.origin) for name, found in settings.values.items()]
    if as_json:
        import json

        print_out(json.dumps({name: {"value": value, "origin": origin} for name, value, origin in rows}, indent=2))
        return
    print_out(f"# file: {settings.file or 'none'}")
    for name, value, origin in rows:
        print_out(f"{name:<24} {_written(value):<24} # {origin}")


@command.command(name="schema")
def schema() -> None:
    """Print the JSON Schema of config.toml."""
    import json

    from dayfly.config_keys import json_schema

    print_out(json.dumps(json_schema(), indent=2))


def _shown(value: object) -> object:
    """A JSON value that anybody may see: in a URL without its password."""
    from dayfly.address import without_password

    if isinstance(value, str):
        return without_password(value)
    if isinstance(value, tuple):
        return list(value)
    return dict(value) if hasattr(value, "keys") else value  # type: ignore[call-overload]


def _written(value: object) -> str:
    import json

    return "(worked out)" if value is None else json.dumps(value)
