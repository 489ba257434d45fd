"""One value of the configuration, from a flag or variable (a text) or from the file (a TOML value)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from dayfly.config_keys import Key, Kind
from dayfly.jobs.ports import check_port_range
from dayfly.jobs.privileges import check_capability
from dayfly.jobs.ranges import check_addresses, check_range
from dayfly.jobs.units import format_duration, format_size, parse_duration, parse_size


def parse_value(key: Key, raw: object) -> object:
    """`raw` in its parsed form: bytes, seconds, tuples, mappings. Raises ValueError with the reason."""
    value = _PARSERS[key.kind](raw)
    if key.choices and value not in key.choices:
        raise ValueError(f"must be {' or '.join(key.choices)}, got {raw!r}")
    if isinstance(value, int | float) and value < key.minimum:
        shown = format_size(int(key.minimum)) if key.kind is Kind.SIZE else format_duration(key.minimum)
        raise ValueError(f"must be {shown} or more, got {raw!r}")
    return value


def _text(raw: object) -> str:
    if isinstance(raw, str) and raw:
        return raw
    raise ValueError(f"must be a text, got {raw!r}")


def _count(raw: object) -> int:
    return _whole(raw, least=1)


def _times(raw: object) -> int:
    return _whole(raw, least=0)


def _whole(raw: object, least: int) -> int:
    if isinstance(raw, str) and raw.strip().isdigit():
        raw = int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= least:
        return raw
    raise ValueError(f"must be a whole number, {least} or more, got {raw!r}")


def _number(raw: object) -> float:
    try:
        number = float(raw) if isinstance(raw, str | int | float) and not isinstance(raw, bool) else -1.0
    except ValueError:
        number = -1.0
    if 0 < number < float("inf"):
        return number
    raise ValueError(f"must be a number above 0, got {raw!r}")


def _size(raw: object) -> int:
    if isinstance(raw, str | int) and not isinstance(raw, bool):
        return parse_size(str(raw))
    raise ValueError(f"must be a size such as 512M, got {raw!r}")


def _duration(raw: object) -> float:
    if isinstance(raw, str | int | float) and not isinstance(raw, bool):
        return parse_duration(str(raw))
    raise ValueError(f"must be a duration such as 90s, got {raw!r}")


def _switch(raw: object) -> bool:
    if isinstance(raw, str):
        raw = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(raw.lower(), raw)
    if isinstance(raw, bool):
        return raw
    raise ValueError(f"must be true or false, got {raw!r}")


def _texts(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        raw = [each.strip() for each in raw.split(",") if each.strip()]
    if isinstance(raw, list | tuple) and all(isinstance(each, str) and each for each in raw):
        return tuple(raw)
    raise ValueError(f"must be a list of texts, got {raw!r}")


def _capabilities(raw: object) -> tuple[str, ...]:
    return tuple(check_capability(each) for each in _texts(raw))


def _labels(raw: object) -> Mapping[str, str]:
    if isinstance(raw, str):
        raw = raw.split(",")
    if isinstance(raw, list | tuple):
        pairs = [str(each).partition("=") for each in raw]
        if not all(name and equals for name, equals, _ in pairs):
            raise ValueError(f"must be NAME=VALUE, got {raw!r}")
        raw = {name: text for name, _, text in pairs}
    if isinstance(raw, Mapping) and all(isinstance(text, str) for text in raw.values()):
        return MappingProxyType(dict(raw))
    raise ValueError(f"must map names to texts, got {raw!r}")


def _ranges(raw: object) -> tuple[str, ...]:
    return tuple(check_range(each) for each in _texts(raw))


def _ports(raw: object) -> tuple[str, ...]:
    return tuple(check_port_range(each) for each in _texts(raw))


def _subnet4(raw: object) -> str:
    return _subnet(raw, version=4, smallest_prefix=29)


def _subnet6(raw: object) -> str:
    return _subnet(raw, version=6, smallest_prefix=112)


def _subnet(raw: object, version: int, smallest_prefix: int) -> str:
    import ipaddress

    found = ipaddress.ip_network(check_addresses(_text(raw)))
    if found.version != version or found.prefixlen > smallest_prefix:
        raise ValueError(f"must be an IPv{version} range of /{smallest_prefix} or larger, got {raw!r}")
    return str(found)


def _addresses(raw: object) -> tuple[str, ...]:
    import ipaddress

    found = tuple(ipaddress.ip_network(check_addresses(each)) for each in _texts(raw))
    if any(each.num_addresses != 1 for each in found):
        raise ValueError(f"must be addresses, got {raw!r}")
    return tuple(str(each.network_address) for each in found)


_PARSERS: Mapping[Kind, Callable[[object], object]] = {
    Kind.TEXT: _text,
    Kind.CHOICE: _text,
    Kind.COUNT: _count,
    Kind.TIMES: _times,
    Kind.NUMBER: _number,
    Kind.SIZE: _size,
    Kind.DURATION: _duration,
    Kind.SWITCH: _switch,
    Kind.TEXTS: _texts,
    Kind.CAPABILITIES: _capabilities,
    Kind.LABELS: _labels,
    Kind.RANGES: _ranges,
    Kind.PORTS: _ports,
    Kind.SUBNET4: _subnet4,
    Kind.SUBNET6: _subnet6,
    Kind.ADDRESSES: _addresses,
}
