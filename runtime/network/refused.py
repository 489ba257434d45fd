"""What the policy refused to one job, from the counters of its addresses (`ruleset.py`).

A job to which nothing was refused costs one question a protocol: its address has no element. Keepers import this file:
lean.
"""

import socket
from dataclasses import dataclass

from dayfly.runtime.network.elements import Sets, packed

_NAMED_AT_MOST = 10


@dataclass(frozen=True, slots=True)
class Refused:
    """`connections` in all, each attempt counted; `targets`: the most frequent addresses with theirs."""

    connections: int
    targets: tuple[tuple[str, int], ...]


def read_refused(
    table: str, address4: str, address6: str | None, netfilter: socket.socket | None = None
) -> Refused | None:
    """What was refused to the job of these addresses; None when nothing was. Raises OSError.

    `netfilter`: of the network namespace to ask in, when that is not this process's own; it stays open.
    """
    connections = 0
    targets: list[tuple[str, int]] = []
    with Sets(table, netfilter) as sets:
        for version, address in ((4, address4), (6, address6)):
            if address is None:
                continue
            count = sets.packets(f"sources{version}", packed(address))
            if count:
                connections += count
                targets += [(target, times) for target, _, times in sets.of(f"refused{version}", packed(address))]
    targets.sort(key=lambda target: -target[1])
    return Refused(connections, tuple(targets[:_NAMED_AT_MOST])) if connections else None
