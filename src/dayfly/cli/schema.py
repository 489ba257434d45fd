"""`dayfly schema`: the JSON Schema of a job document."""

import click


@click.command(name="schema")
def command() -> None:
    """Print the JSON Schema of a job document, for editors and validators."""
    import json

    from dayfly.jobs.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
