"""What of the policy belongs to one job: the elements that begin with its address, put in and taken out again."""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import collapse_addresses

from dayfly.jobs.ranges import INTERNET
from dayfly.runtime.network.elements import Sets, packed
from dayfly.runtime.network.published import entries
from dayfly.runtime.network.ranges import of_version

_BY_ADDRESS = ("sources", "bursts", "own", "keeps_internet")  # the kernel itself drops those of `connections`


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job is on the bridge."""

    table: str
    address4: str
    address6: str | None

    @property
    def by_version(self) -> list[tuple[int, str]]:
        return [(4, self.address4), *([(6, self.address6)] if self.address6 else [])]


def own_list(place: Place, allow: tuple[str, ...]) -> str:
    """Commands that let the job reach what it lists, and nothing else."""
    table, lines = place.table, []
    for version, address in place.by_version:
        lines.append(f"add element inet {table} own{version} {{ {address} }}")
        if INTERNET in allow:
            lines.append(f"add element inet {table} keeps_internet{version} {{ {address} }}")
        # All are of one version; the set takes no two that overlap.
        picked = collapse_addresses(of_version(version, allow))  # type: ignore[type-var]
        lines += [f"add element inet {table} picked{version} {{ {address} . {each} }}" for each in picked]
    return "".join(f"{line}\n" for line in lines)


def removal_of(place: Place) -> str:
    """Commands that take out every element of this place, "" when there is none. Raises OSError."""
    with Sets(place.table) as sets:
        lines = [line for version, address in place.by_version for line in _elements(sets, place, version, address)]
    own = {address for _, address in place.by_version}
    elements = [f"element inet {place.table} {line}\n" for line in lines]
    elements += [each.text(place.table) for each in entries(place.table) if each.address in own]
    return "".join(f"delete {each}" for each in elements)


def _elements(sets: Sets, place: Place, version: int, address: str) -> Iterator[str]:
    raw = packed(address)
    noted = [name for name in _BY_ADDRESS if sets.packets(f"{name}{version}", raw) is not None]
    yield from (f"{name}{version} {{ {address} }}" for name in noted)
    if "sources" in noted:
        yield from (f"refused{version} {{ {address} . {first} }}" for first, _, _ in sets.of(f"refused{version}", raw))
    if "own" in noted:
        yield from (
            f"picked{version} {{ {address} . {first}-{last} }}" for first, last, _ in sets.of(f"picked{version}", raw)
        )
