"""`dayfly help`: the help of a command, or a page on a topic."""

import click

from dayfly.cli.say import print_out
from dayfly.cli.topics import TOPICS, exit_code_table


@click.command(name="help")
@click.argument("topic", nargs=-1)
@click.pass_context
def command(context: click.Context, topic: tuple[str, ...]) -> None:
    """Explain a command or a topic: exit-codes, documents, directory, streams, ids, configuration, completion."""
    root = context.find_root()
    if not topic:
        print_out(root.get_help())
    elif topic[0] == "exit-codes":
        print_out(exit_code_table())
    elif topic[0] in TOPICS:
        print_out(TOPICS[topic[0]].strip())
    else:
        print_out(_help_of(root, topic))


def _help_of(context: click.Context, words: tuple[str, ...]) -> str:
    for word in words:
        group = context.command
        found = group.get_command(context, word) if isinstance(group, click.Group) else None
        if found is None:
            raise click.UsageError(f"no command or topic {word!r}; topics: exit-codes, {', '.join(TOPICS)}")
        context = click.Context(found, info_name=word, parent=context)
    return context.get_help()
