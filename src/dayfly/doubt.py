"""Why a job may wait for ever, as far as one can tell now from the workers that serve its queue."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dayfly.jobs.demand import Capacity, Demand

if TYPE_CHECKING:
    from dayfly.jobs.spec import JobSpec
    from dayfly.queue.serving import Server

_NOTHING = Capacity(0, 0, 0)


def doubt_of(spec: JobSpec, servers: Sequence[Server]) -> str | None:
    """A sentence for people; None when one of `servers` could take the job once it is free."""
    if not servers:
        return f"no worker serves the queue {spec.queue} now; the job waits until one does"
    able = [server for server in servers if spec.labels.items() <= server.labels.items()]
    if not able:
        wanted = ", ".join(f"{name}={value}" if value else name for name, value in spec.labels.items())
        return f"no worker of the queue {spec.queue} has the labels {wanted}; the job waits until one has"
    if spec.dir is not None and spec.dir.is_live:
        able = [server for server in able if server.hostname == socket.gethostname()]
        if not able:
            return (
                f"no worker on this host serves the queue {spec.queue}, and only one here can mount {spec.dir.path}; "
                "the job waits until one does (--no-dir, or `dayfly submit --dir`, runs anywhere)"
            )
    need = Demand.of(spec).need(_NOTHING)
    if not any(server.offer.holds(need) for server in able):
        return f"it asks for {_words(need)}, more than any worker has ({_most(able)}); the job waits until one has"
    return None


def _most(servers: Sequence[Server]) -> str:
    return "; ".join(dict.fromkeys(_words(server.offer) for server in servers))


def _words(amount: Capacity) -> str:
    """`64 cpus, 512 MiB of memory`, without what is not asked for."""
    parts = (
        f"{amount.cpus_milli / 1000:g} cpus" if amount.cpus_milli else "",
        f"{amount.memory_mib} MiB of memory" if amount.memory_mib else "",
        f"{amount.disk_mib} MiB of disk" if amount.disk_mib else "",
    )
    return ", ".join(part for part in parts if part)
