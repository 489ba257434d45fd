"""The configuration: one file, the environment and flags become one frozen set of values that know their origin.

Precedence: flag, environment, file, default. The file is $DAYFLY_CONFIG, else the user's
$XDG_CONFIG_HOME/dayfly/config.toml, else /etc/dayfly/config.toml: the first that exists, and only that one.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from dayfly.config_keys import KEYS, SECTIONS, Key
from dayfly.config_values import parse_value
from dayfly.home import home
from dayfly.jobs.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Value:
    """A value in its parsed form (bytes, seconds, tuples) and, in words, where it was set."""

    value: object
    origin: str


class Settings:
    """All values. One accessor per shape; each returns None where the value is left to the host."""

    def __init__(self, values: Mapping[str, Value], file: Path | None) -> None:
        self.values = MappingProxyType(dict(values))
        self.file = file

    def origin(self, name: str) -> str:
        return self.values[name].origin

    def text(self, name: str) -> str | None:
        found = self.values[name].value
        return found if isinstance(found, str) else None

    def whole(self, name: str) -> int | None:
        found = self.values[name].value
        return found if isinstance(found, int) else None

    def number(self, name: str) -> float | None:
        found = self.values[name].value
        return float(found) if isinstance(found, int | float) else None

    def is_on(self, name: str) -> bool:
        return self.values[name].value is True

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.values[name].value
        return found if isinstance(found, tuple) else ()

    def labels(self, name: str) -> Mapping[str, str]:
        found = self.values[name].value
        return found if isinstance(found, Mapping) else {}


def load(flags: Mapping[str, object] | None = None) -> Settings:
    """Read everything. `flags` maps key names to values as typed (None = not given). Raises ConfigError."""
    file = find_file()
    values = {name: Value(_computed(key), "default") for name, key in KEYS.items()}
    if file is not None:
        values.update(_from_file(file))
    values.update(_from_environment())
    values.update(_from_flags(flags or {}))
    return Settings(values, file)


def find_file() -> Path | None:
    if named := os.environ.get("DAYFLY_CONFIG"):
        if not os.path.isfile(named):
            raise ConfigError(f"DAYFLY_CONFIG={named}", None, "there is no such file")
        return Path(os.path.abspath(named))
    user = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    candidates = (Path(user) / "dayfly/config.toml", Path("/etc/dayfly/config.toml"))
    return next((each for each in candidates if os.path.isfile(each)), None)


def home_directory(settings: Settings) -> Path:
    """DAYFLY_HOME, or what the file says, or the default."""
    return Path(os.path.abspath(settings.text("worker.home") or home()))


def store_directory(settings: Settings) -> Path:
    """The directory of the store of logs and artifacts. Raises ConfigError for a URL of another kind."""
    url = settings.text("store.url")
    if url is None:
        return home_directory(settings) / "store"
    if not url.startswith("file:///"):
        raise ConfigError(settings.origin("store.url"), None, f"store.url {url!r}: only file:///PATH is built yet")
    from urllib.parse import unquote

    return Path(unquote(url.removeprefix("file://")))


def _computed(key: Key) -> object:
    if key.name == "worker.home":
        return str(home())
    return None if key.default is None else parse_value(key, key.default)


def _from_file(file: Path) -> Iterator[tuple[str, Value]]:
    text = _read(file)
    for name, raw in _settings_of(text, file):
        line = _line_of(text, name)
        if name not in KEYS:
            raise ConfigError(str(file), line, f"unknown key `{name}`", _nearest(name))
        try:
            yield name, Value(parse_value(KEYS[name], raw), f"{file}:{line}")
        except ValueError as error:
            raise ConfigError(str(file), line, f"{name}: {error}") from error


def _from_environment() -> Iterator[tuple[str, Value]]:
    for name, key in KEYS.items():
        for variable in key.variables:
            if raw := os.environ.get(variable):
                try:
                    yield name, Value(parse_value(key, raw), f"environment {variable}")
                except ValueError as error:
                    raise ConfigError(f"environment {variable}", None, str(error)) from error
                break


def _from_flags(flags: Mapping[str, object]) -> Iterator[tuple[str, Value]]:
    for name, raw in flags.items():
        if raw is not None and raw != ():
            flag = "--" + name.partition(".")[2].replace("_", "-")
            try:
                yield name, Value(parse_value(KEYS[name], raw), f"flag {flag}")
            except ValueError as error:
                raise ConfigError(f"flag {flag}", None, str(error)) from error


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(file), None, f"cannot read it: {error}") from error


def _settings_of(text: str, file: Path) -> Iterator[tuple[str, object]]:
    """Each `section.key` of the file with its raw value."""
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        raise ConfigError(str(file), int(found[1]) if found else None, f"not TOML: {error}") from error
    for section, keys in document.items():
        if section not in SECTIONS or not isinstance(keys, dict):
            known = "there are " + " ".join(f"[{each}]" for each in SECTIONS)
            raise ConfigError(str(file), _line_of(text, section), f"unknown section `{section}`", known)
        for key, raw in keys.items():
            yield f"{section}.{key}", raw


def _line_of(text: str, name: str) -> int:
    """The line that sets `section.key`, or opens `section`. tomllib keeps no positions, so look for it once more."""
    section, _, key = name.partition(".")
    current, opened = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"""\s*\[\s*["']?([\w-]+)["']?\s*[].]""", line):
            current = header[1]
            opened = number if current == section else opened
        elif assigned := re.match(r"""\s*["']?([\w-]+)["']?\s*[.=](?:\s*["']?([\w-]+))?""", line):
            if current == section and assigned[1] == key:
                return number
            if not current and assigned[1] == section and (not key or assigned[2] == key):
                return number
    return opened


def _nearest(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.5)
    if near:
        return f"did you mean `{near[0]}`?"
    section = name.partition(".")[0]
    known = [each.name.partition(".")[2] for each in KEYS.values() if each.section == section]
    return f"[{section}] knows {', '.join(known)}"
