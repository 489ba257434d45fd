"""Short forms of document fields, written out. Each takes what the document holds and returns the long form.

What is no short form is returned as it is, for the model to accept or to refuse. ValueError names what is wrong
with a short form that can be recognised.
"""

from __future__ import annotations

from typing import Any

from dayfly.jobs.names import shown

_LONGEST_TO_SPLIT = 64 << 10  # shlex takes time by the square of a word's length: 16 s for 1 MiB


def one_or_many(value: Any) -> Any:
    """`x` for `[x]`."""
    return [value] if isinstance(value, str | int | dict) and not isinstance(value, bool) else value


def words(value: Any) -> Any:
    """`"make -j2 test"` for `[make, -j2, test]`: split as a shell would, nothing expanded; "" is the empty list."""
    if not isinstance(value, str):
        return value
    if len(value) > _LONGEST_TO_SPLIT:
        raise ValueError(f"is too long to be split into words ({len(value)} characters); write it as a list")
    import shlex

    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {str(error).lower()}; write it as a list") from error


def pairs(value: Any) -> Any:
    """`A=1` or `[A=1, B=2]` for `{A: 1, B: 2}`."""
    return _mapping(value, needs_value=True)


def labels(value: Any) -> Any:
    """As pairs(), and `gpu` for `{gpu: ""}`."""
    return _mapping(value, needs_value=False)


def _mapping(value: Any, *, needs_value: bool) -> Any:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        return value
    mapping: dict[str, str] = {}
    for number, item in enumerate(items, 1):
        name, equals, content = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not isinstance(item, str) or (needs_value and not equals):
            raise ValueError(f"item {number} must be NAME=VALUE, got {shown(item)}")
        if name in mapping:
            raise ValueError(f"item {number} gives {shown(name)} a second time")
        mapping[name] = content
    return mapping


def mount(value: Any) -> Any:
    """`SRC[:DST][:rw]` for `{source, target, writable}`."""
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    mode = parts.pop() if len(parts) > 1 and parts[-1] in ("rw", "ro") else "ro"
    if len(parts) > 2 or not all(parts):
        raise ValueError(f"must be SRC[:DST][:rw], got {shown(value)}")
    return {"source": parts[0], "target": parts[-1], "writable": mode == "rw"}


def device(value: Any) -> Any:
    """`SRC[:DST][:PERMISSIONS]` for `{source, target, permissions}`."""
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    permissions = parts.pop() if len(parts) > 1 and not parts[-1].startswith("/") else "rw"
    if len(parts) > 2 or not all(parts):
        raise ValueError(f"must be SRC[:DST][:rwm], got {shown(value)}")
    return {**dict(zip(("source", "target"), parts, strict=False)), "permissions": permissions}


def secrets(value: Any) -> Any:
    """`[A, B]` for `{A: {env: A}, B: {env: B}}`; NAME=VARIABLE and NAME=/PATH too, as texts of a list."""
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        return value
    mapping: dict[str, Any] = {}
    for number, item in enumerate(items, 1):
        name, _, target = item.partition("=") if isinstance(item, str) else ("", "", "")
        if not name:
            raise ValueError(f"item {number} must be NAME, NAME=VARIABLE or NAME=/PATH, got {shown(item)}")
        if name in mapping:
            raise ValueError(f"item {number} gives {shown(name)} a second time")
        mapping[name] = target or name
    return mapping


def secret(value: Any) -> Any:
    """`TOKEN` for `{env: TOKEN}`, `/opt/app/netrc` for `{file: /opt/app/netrc}`."""
    if not isinstance(value, str):
        return value
    return {"file": value} if value.startswith("/") else {"env": value}


def settings(value: Any) -> Any:
    """`cpus=2 memory=2G pids=512` for `{cpus: 2, memory: 2G, pids: 512}`."""
    if not isinstance(value, str):
        return value
    fields: dict[str, Any] = {}
    for word in value.split():
        name, equals, content = word.partition("=")
        if not equals or name in fields:
            raise ValueError(f"must be NAME=VALUE NAME=VALUE …, each name once, got {shown(value)}")
        fields[name] = _scalar(content)
    return fields


def io_limit(value: Any) -> Any:
    """`/dev/sda write_bps=10M` for `{device: /dev/sda, write_bps: 10M}`; without a device it is the job's own disk."""
    if not isinstance(value, str):
        return value
    first, _, rest = value.strip().partition(" ")
    return settings(value) if "=" in first else {"device": first, **settings(rest)}


def ready(value: Any) -> Any:
    """`tcp:5432` for `{tcp: 5432}`, `cmd:pg_isready -q` for `{cmd: [pg_isready, -q]}`."""
    if not isinstance(value, str):
        return value
    kind, _, what = value.partition(":")
    if kind not in ("tcp", "cmd") or not what.strip():
        raise ValueError(f"must be tcp:PORT or cmd:COMMAND, got {shown(value)}")
    return {kind: _scalar(what.strip()) if kind == "tcp" else what}


def port(value: Any) -> Any:
    """`8080:80/udp` for `{host: 8080, port: 80, protocol: udp}`; `5432` leads to the same number, by tcp."""
    if not isinstance(value, str | int) or isinstance(value, bool):
        return value
    numbers, slash, protocol = str(value).partition("/")
    host, colon, inner = numbers.partition(":")
    return {
        "host": _scalar(host),
        "port": _scalar(inner if colon else host),
        "protocol": protocol if slash else "tcp",
    }


def named(field: str) -> Any:
    """For a field whose short form is the value of its main key: `field(3)` for `{max: 3}`."""
    return lambda value: value if isinstance(value, dict) else {field: value}


def _scalar(text: str) -> Any:
    """A number where the text is one, as YAML would read it."""
    if text.isascii() and text.isdigit() and len(text) <= 20:
        return int(text)
    whole, point, fraction = text.partition(".")
    is_decimal = point and len(text) <= 20 and all(part.isascii() and part.isdigit() for part in (whole, fraction))
    return float(text) if is_decimal else text
