"""The flags of `run` and `submit`, and the document that they make of a file, a command and themselves."""

from __future__ import annotations

import base64
import fnmatch
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import click

from dayfly.home import named
from dayfly.jobs import short_forms

_NOTHING: Mapping[str, Any] = {}
_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-f", "--file", metavar="FILE|-", help="Take the job from YAML, JSON, JSON Lines; flags override."),
    click.option("--image", metavar="IMAGE", help="Image to run in (default: the configured one, else `host`)."),
    click.option("-e", "--env", multiple=True, metavar="NAME[=VALUE]", help="A variable; NAME or 'CI_*' copies yours."),
    click.option("--env-file", multiple=True, metavar="FILE", help="Read variables from a file, NAME=VALUE a line."),
    click.option("-w", "--workdir", metavar="DIR", help="Working directory in the container."),
    click.option("-u", "--user", metavar="USER[:GROUP]", help="User to run as."),
    click.option("-m", "--memory", metavar="SIZE", help="Memory limit, e.g. 2G."),
    click.option("--cpus", type=float, metavar="N", help="Cpus, e.g. 1.5."),
    click.option("--pids", type=int, metavar="N", help="Limit of processes and threads."),
    click.option("--disk", metavar="SIZE", help="Limit of what the job may write."),
    click.option("--mount", multiple=True, metavar="SRC[:DST][:rw]", help="Mount a directory of the host; repeatable."),
    click.option("--device", multiple=True, metavar="SRC[:DST][:rwm]", help="Give a device of the host; repeatable."),
    click.option("--cap-add", multiple=True, metavar="NAME", help="Add a capability, or ALL; repeatable."),
    click.option("--cap-drop", multiple=True, metavar="NAME", help="Drop a capability, or ALL; repeatable."),
    click.option("--security-opt", multiple=True, metavar="seccomp=unconfined", help="Leave all system calls open."),
    click.option("--privileged", is_flag=True, help="All capabilities over its own namespaces, no filter, no masks."),
    click.option("--secret", multiple=True, metavar="NAME[=VAR|=/PATH]", help="Give the job a secret; repeatable."),
    click.option("--network", metavar="MODE", help="none, bridge, host, or auto: bridge if the worker has one."),
    click.option("--network-allow", multiple=True, metavar="RANGE", help="All that the job reaches; repeatable."),
    click.option("--pull", metavar="always|missing|never", help="When to ask the image's registry (default: missing)."),
    click.option("--entrypoint", metavar="COMMAND", help="Replace the image's entrypoint; '' clears it."),
    click.option("--script", metavar="FILE|-", help="Run a shell script instead of a command."),
    click.option("--stdin", metavar="FILE|-", help="Give the job this standard input (default: empty)."),
    click.option("--tty", is_flag=True, help="Give the job a terminal."),
    click.option("--dir", "directory", metavar="DIR", help="Directory that the job sees as /workspace, copy-on-write."),
    click.option("--no-dir", is_flag=True, help="Give the job no directory."),
    click.option("--artifact", multiple=True, metavar="GLOB", help="Bring back what matches; repeatable."),
    click.option("--changed", is_flag=True, help="Collect every file that the job wrote."),
    click.option("--timeout", metavar="DURATION", help="Stop the job after so long, e.g. 20m."),
    click.option("--queue", metavar="NAME", help="Queue to put the job into."),
    click.option("--queue-timeout", metavar="DURATION", help="Give up when no worker has taken it by then."),
    click.option("--priority", type=int, metavar="N", help="Higher goes first."),
    click.option("--label", multiple=True, metavar="NAME[=VALUE]", help="What the worker must have; repeatable."),
    click.option("--name", metavar="NAME", help="A name for people."),
    click.option("--retry", type=int, metavar="N", help="Try again up to N times when the job is lost."),
    click.option("--after", multiple=True, metavar="ID[:ok|any]", help="Start when that job has ended; repeatable."),
    click.option("--delay", metavar="DURATION", help="Do not start before so long."),
    click.option("--unique", metavar="KEY", help="Refuse while a job with this key is not finished."),
    click.option("--keep", metavar="never|failed|always", help="Keep the job's directory and disk on the worker."),
    click.option("--debug", is_flag=True, help="Say how the container is made before the job runs in it."),
    click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)  # fmt: skip


def job_flags(command: _Command) -> _Command:
    """Decorate a click command: it gets one keyword argument `flags`-style per option above."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def documents(flags: Mapping[str, Any], unstated: Mapping[str, Any] = _NOTHING) -> list[dict[str, Any]]:
    """One document per job of `--file`, or one in all, with the flags laid over it. Raises SpecError, UsageError.

    `unstated`: values of fields that neither a file nor a flag states.
    """
    _check(flags)
    over = _document(flags)
    if flags["file"] is None:
        return [{**unstated, **over}]
    from dayfly.cli.overlay import lay_over
    from dayfly.jobs.door import load_documents, read_job

    name = "standard input" if flags["file"] == "-" else flags["file"]
    bases = load_documents(_read_text(flags["file"]), name)
    overs = [{**{field: unstated[field] for field in unstated if field not in base}, **over} for base in bases]
    pairs = zip(overs, bases, strict=True)
    laid = [lay_over(each, base, without_dir=flags["no_dir"]) for each, base in pairs]
    return [read_job(each).to_document() for each in laid]


def _check(flags: Mapping[str, Any]) -> None:
    if flags["command"] and flags["script"] is not None:
        raise click.UsageError("give a command or --script, not both")
    if flags["directory"] is not None and flags["no_dir"]:
        raise click.UsageError("give --dir or --no-dir, not both")
    if [flags["file"], flags["script"], flags["stdin"]].count("-") > 1:
        raise click.UsageError("only one of --file, --script and --stdin can be read from standard input")
    if not any((flags["command"], flags["script"], flags["file"], flags["image"])):
        raise click.UsageError("nothing to run: give a command, --script or --file")


def _document(flags: Mapping[str, Any]) -> dict[str, Any]:
    """What the flags say, every list and map written out."""
    maps = {
        "env": _environment(flags["env_file"], flags["env"]),
        "labels": dict(_pair(each) for each in flags["label"]),
        "limits": _stated({key: flags[key] for key in ("memory", "cpus", "pids", "disk")}),
        "artifacts": _artifacts(flags),
        "retry": _stated({"max": flags["retry"]}),
        "mounts": list(flags["mount"]),
        "devices": list(flags["device"]),
        "cap_add": list(flags["cap_add"]),
        "cap_drop": list(flags["cap_drop"]),
        "secrets": short_forms.secrets(list(flags["secret"])) if flags["secret"] else {},
        "after": _after(flags["after"]) if flags["after"] else {},
    }
    return {**_scalars(flags), **_program(flags), **{field: value for field, value in maps.items() if value}}


def _scalars(flags: Mapping[str, Any]) -> dict[str, Any]:
    names = ("image", "workdir", "user", "timeout", "queue", "priority", "name", "delay", "unique", "keep", "pull")
    values = {name: flags[name] for name in names}
    values |= {"queue_timeout": flags["queue_timeout"], "dir": flags["directory"], "tty": flags["tty"] or None}
    values |= {"debug": flags["debug"] or None, "privileged": flags["privileged"] or None}
    values |= {"seccomp": _seccomp(flags["security_opt"]), "network": _network(flags)}
    return _stated(values)


def _seccomp(options: Iterable[str]) -> str | None:
    """Of Docker's --security-opt the one that there is; a profile of one's own is none of it."""
    mode = None
    for option in options:
        name, _, mode = option.partition("=")
        if name != "seccomp" or mode not in ("default", "unconfined"):
            raise click.UsageError(f"--security-opt {option}: there is seccomp=unconfined and seccomp=default")
    return mode


def _program(flags: Mapping[str, Any]) -> dict[str, Any]:
    program: dict[str, Any] = {}
    if flags["entrypoint"] is not None:
        program["entrypoint"] = [flags["entrypoint"]] if flags["entrypoint"] else []
    if flags["command"]:
        program["command"] = list(flags["command"])
    if flags["script"] is not None:
        program["script"] = _read_text(flags["script"])
    if flags["stdin"] is not None:
        program["stdin"] = {"base64": base64.b64encode(_read_bytes(flags["stdin"])).decode()}
    return program


def _artifacts(flags: Mapping[str, Any]) -> dict[str, Any]:
    paths = {"paths": list(flags["artifact"])} if flags["artifact"] else {}
    return {**paths, "changed": True} if flags["changed"] else paths


def _network(flags: Mapping[str, Any]) -> str | dict[str, Any] | None:
    if flags["network_allow"]:
        return {"mode": flags["network"] or "bridge", "allow": list(flags["network_allow"])}
    mode: str | None = flags["network"]
    return mode


def _after(after: Iterable[str]) -> dict[str, Any]:
    pairs = [each.partition(":") for each in after]
    conditions = {condition or "ok" for _, _, condition in pairs}
    if len(conditions) > 1:
        raise click.UsageError(f"--after: one condition for all jobs, not {' and '.join(sorted(conditions))}")
    return {"ids": [named(job) for job, _, _ in pairs], "when": conditions.pop()}


def _environment(files: Iterable[str], variables: Iterable[str]) -> dict[str, str]:
    lines = [line for file in files for line in _env_file_lines(file)]
    return dict(pair for variable in (*lines, *variables) for pair in _variables(variable))


def _variables(text: str) -> Iterator[tuple[str, str]]:
    """`NAME=VALUE` as it stands; `NAME` and `CI_*` from the caller's environment, as far as they are set there."""
    name, equals, value = text.partition("=")
    if equals:
        yield name, value
    elif any(each in name for each in "*?["):
        yield from ((each, os.environ[each]) for each in sorted(os.environ) if fnmatch.fnmatchcase(each, name))
    elif name in os.environ:
        yield name, os.environ[name]


def _env_file_lines(file: str) -> list[str]:
    """Docker's format: a line is NAME=VALUE or NAME, quotes are part of the value, # begins a comment line."""
    lines = (line.lstrip() for line in _read_text(file).splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read_text(file: str) -> str:
    try:
        return _read_bytes(file).decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"cannot read {file}: it is not UTF-8 ({error.reason} at byte {error.start})") from error


def _read_bytes(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        raise click.UsageError(f"cannot read {file}: {error.strerror}") from error
