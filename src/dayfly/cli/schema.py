"""`dayfly schema`: the JSON Schema of a job document."""

import click

from dayfly.cli.say import print_out


@click.command(name="schema")
def command() -> None:
    """Print the JSON Schema of a job document, for editors and validators."""
    import json

    from dayfly.jobs.schema import json_schema

    print_out(json.dumps(json_schema(), indent=2))
