"""The instructions that change an image's configuration and nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from dayfly.building.state import State
from dayfly.jobs.containerfile.instructions import Instruction, json_list, read_pairs
from dayfly.jobs.containerfile.words import expand
from dayfly.jobs.units import parse_duration

Say = Callable[[str], None]
_MOST_ENVIRONMENT = 1 << 20  # half of what execve(2) takes


def _expanded(instruction: Instruction, text: str, state: State) -> str:
    try:
        return expand(text, state.variables, instruction.line.escape)
    except ValueError as error:
        raise instruction.line.fault(str(error)) from error


def _pairs(instruction: Instruction, state: State) -> dict[str, str]:
    return {_expanded(instruction, n, state): _expanded(instruction, v, state) for n, v in read_pairs(instruction)}


def _env(state: State, instruction: Instruction, say: Say) -> State:
    after = state.with_environment(_pairs(instruction, state))
    if sum(map(len, after.settings["Env"])) > _MOST_ENVIRONMENT:
        raise instruction.line.fault(f"the environment would have more than {_MOST_ENVIRONMENT >> 10} KiB")
    return after


def _label(state: State, instruction: Instruction, say: Say) -> State:
    return state.with_settings(Labels={**(state.settings.get("Labels") or {}), **_pairs(instruction, state)})


def _command(state: State, instruction: Instruction, say: Say) -> State:
    return replace(state.with_settings(Cmd=_program(instruction, state)), has_own_command=True)


def _entrypoint(state: State, instruction: Instruction, say: Say) -> State:
    """A command that is the base image's own goes with its entrypoint, as Docker has it; one of this stage stays."""
    command = state.settings.get("Cmd") if state.has_own_command else None
    return state.with_settings(Entrypoint=_program(instruction, state), Cmd=command)


def _program(instruction: Instruction, state: State) -> list[str]:
    return list(instruction.words) if instruction.words is not None else [*state.shell, instruction.text]


def _user(state: State, instruction: Instruction, say: Say) -> State:
    return state.with_settings(User=_expanded(instruction, instruction.text, state))


def _expose(state: State, instruction: Instruction, say: Say) -> State:
    ports = dict(state.settings.get("ExposedPorts") or {})
    for word in instruction.split():
        port, _, protocol = _expanded(instruction, word, state).partition("/")
        if not port.replace("-", "").isdecimal() or protocol.lower() not in ("", "tcp", "udp", "sctp"):
            raise instruction.line.fault(f"{word[:40]!r} is no port such as 80 or 53/udp")
        ports[f"{port}/{protocol.lower() or 'tcp'}"] = {}
    return state.with_settings(ExposedPorts=ports)


def _volume(state: State, instruction: Instruction, say: Say) -> State:
    paths = instruction.words if instruction.words is not None else instruction.split()
    named = {_expanded(instruction, path, state): dict[str, str]() for path in paths}
    return state.with_settings(Volumes={**(state.settings.get("Volumes") or {}), **named})


def _shell(state: State, instruction: Instruction, say: Say) -> State:
    if not instruction.words:
        raise instruction.line.fault("it takes a JSON list", 'SHELL ["/bin/bash", "-c"]')
    return state.with_settings(Shell=list(instruction.words))


def _stop_signal(state: State, instruction: Instruction, say: Say) -> State:
    return state.with_settings(StopSignal=_expanded(instruction, instruction.text, state))


def _maintainer(state: State, instruction: Instruction, say: Say) -> State:
    say("    warning: MAINTAINER is deprecated: LABEL org.opencontainers.image.authors=…")
    return replace(state, config={**state.config, "author": instruction.text})


def _on_build(state: State, instruction: Instruction, say: Say) -> State:
    say("    warning: ONBUILD is recorded, and taken by no build of Dayfly's")
    return state.with_settings(OnBuild=[*(state.settings.get("OnBuild") or []), instruction.text])


def _health_check(state: State, instruction: Instruction, say: Say) -> State:
    """Docker's form of it; times in nanoseconds."""
    say("    warning: HEALTHCHECK is recorded, and no job of Dayfly's looks at it")
    kind, _, rest = instruction.text.partition(" ")
    if kind.upper() == "NONE":
        return state.with_settings(Healthcheck={"Test": ["NONE"]})
    if kind.upper() != "CMD":
        raise instruction.line.fault("it is either CMD … or NONE")
    words = json_list(rest.strip())
    check: dict[str, object] = {"Test": ["CMD", *words] if words is not None else ["CMD-SHELL", rest.strip()]}
    for flag, name in _TIMES.items():
        if flag in instruction.flags:
            check[name] = _nanoseconds(instruction, flag)
    if "retries" in instruction.flags:
        if not instruction.flags["retries"].isdecimal():
            raise instruction.line.fault("--retries takes a number")
        check["Retries"] = int(instruction.flags["retries"])
    return state.with_settings(Healthcheck=check)


_TIMES = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
}


def _nanoseconds(instruction: Instruction, flag: str) -> int:
    try:
        return round(parse_duration(instruction.flags[flag]) * 1e9)
    except ValueError as error:
        raise instruction.line.fault(f"--{flag}: {error}") from error


METADATA: Mapping[str, Callable[[State, Instruction, Say], State]] = {
    "ENV": _env,
    "LABEL": _label,
    "CMD": _command,
    "ENTRYPOINT": _entrypoint,
    "USER": _user,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "MAINTAINER": _maintainer,
    "ONBUILD": _on_build,
    "HEALTHCHECK": _health_check,
}
