"""The command `dayfly`: finds the one small file that a command lives in, and turns what goes wrong into an exit code.

Nothing but click is imported before the command is known, so that `dayfly --help` and shell completion answer at once.
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence

import click

from dayfly.cli.say import complain
from dayfly.jobs.errors import DayflyError

EXIT_OURS = 125
EXIT_CANCELLED = 130
EXIT_SIGPIPE = 141

# Here and not in the commands' files: `dayfly --help` must not load them.
_COMMANDS = {
    "run": "Run a job now, follow its log, end with its exit code.",
    "submit": "Put a job into the queue and print its id.",
    "ls": "List jobs.",
    "status": "Show what is known of a job.",
    "wait": "Wait for jobs to finish and end as `run` would.",
    "attach": "Follow a job that runs already; Ctrl-C detaches.",
    "logs": "Print a job's log.",
    "artifacts": "List or download what a job left behind.",
    "cancel": "Stop jobs, queued or running.",
    "retry": "Run a finished job again, under a new id.",
    "explain": "Say in full why a job ended as it did.",
    "changes": "List what a kept job has changed in its root.",
    "worker": "Serve queues on this host.",
    "up": "Start the embedded Redis and worker, and keep them.",
    "down": "Stop the embedded Redis and worker.",
    "key": "Make and show the keys of signed jobs and of secrets.",
    "secret": "Set, list and remove secrets that jobs may have.",
    "image": "Pull, push, import, export, list and remove images.",
    "login": "Keep the password of an image registry.",
    "logout": "Forget the password of an image registry.",
    "config": "Show the configuration and where each value comes from.",
    "schema": "Print the JSON Schema of a job document.",
    "doctor": "Say what this host can enforce and how to mend what it cannot.",
    "help": "Explain a command or a topic.",
}
_NOT_BUILT = (*("exec", "shell", "pipeline", "batch", "cron", "token", "store", "host", "server", "top"),)


class _ReaderGoneError(Exception):
    """Whoever read our stdout has closed it."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"dayfly.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] in _NOT_BUILT:
            raise click.UsageError(f"`dayfly {args[0]}` is not built yet", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """click makes exit code 1 of a broken pipe, which would look like a job's."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _ReaderGoneError from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`dayfly help TOPIC` explains: exit-codes, documents, directory, streams, ids, configuration, completion.",
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=lambda *a: _print_version(*a))
def dayfly() -> None:
    """Run CI and batch jobs, each in a container that exists for that job alone."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; never raises (but with DAYFLY_DEBUG=1, to show the traceback)."""
    _mend_stdio()
    # The imports make some 100,000 objects that stay; looking for rubbish among them costs 25 ms of 320.
    gc.set_threshold(100_000)
    try:
        code = dayfly.main(arguments, prog_name="dayfly", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt):
        return EXIT_CANCELLED
    except SystemExit as left:  # click, after shell completion, and when the reader of a help page has gone
        return left.code if isinstance(left.code, int) else EXIT_OURS
    except (_ReaderGoneError, BrokenPipeError):
        _forget_stdout()
        return EXIT_SIGPIPE
    except click.ClickException as error:
        return _report_usage(error)
    except DayflyError as error:
        return _report(error)
    except MemoryError:
        complain("out of memory")
        return EXIT_OURS
    except Exception as error:  # noqa: BLE001 - the last door: a traceback is for us, not for the user
        return _report_bug(error)


def _print_version(context: click.Context, _: click.Parameter, is_wanted: bool) -> None:
    if is_wanted:
        from dayfly import __version__

        click.echo(f"dayfly {__version__}")
        context.exit()


def _report_usage(error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return EXIT_OURS
    hint = f"; see `{context.command_path} --help`" if context else ""
    complain(f"{error.format_message().rstrip('.')}{hint}")
    return EXIT_OURS


def _report(error: DayflyError) -> int:
    _raise_when_debugging(error)
    complain(str(error))
    return error.exit_code


def _report_bug(error: Exception) -> int:
    _raise_when_debugging(error)
    complain(f"{type(error).__name__}: {error}")
    complain("this is a fault of Dayfly's own; DAYFLY_DEBUG=1 shows where it happened")
    return EXIT_OURS


def _raise_when_debugging(error: Exception) -> None:
    if os.environ.get("DAYFLY_DEBUG") == "1":
        raise error


def _mend_stdio() -> None:
    """Whoever closed descriptor 0, 1 or 2 would otherwise find our lock files and sockets there."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - lives as long as the process


def _forget_stdout() -> None:
    """The reader is gone; what Python still holds for it must not complain again when the process ends."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)
