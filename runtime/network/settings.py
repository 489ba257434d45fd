"""What an operator decided about the bridge of one home, as it travels from the agent to the network's own process.

A file below the home and not an argument: the process is started only when the first job needs it (`server.py`), by a
launcher that knows nothing of networks.
"""

import json
import os
from dataclasses import asdict, dataclass
from typing import Self

from dayfly.jobs.errors import HostError
from dayfly.jobs.ranges import INTERNET

FILE = "run/network.json"
JOBS_AT_MOST = 4093
JOBS_OF_A_USER_AT_MOST = 509
"""A transaction with a place for each must fit into what an ordinary user's socket holds (net.core.wmem_max)."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """The bridge of one home. Ranges are checked before they come here (jobs/ranges.py).

    `tag` names bridge, ports and tables. `egress` is what every job reaches, `deny` what none does; `never` are
    (address, port) of the queue's server. `subnet4`, `subnet6` None: one is chosen. `dns` (): the host's resolvers.
    `jobs_at_most` have a place at a time.
    """

    tag: str
    subnet4: str | None = None
    subnet6: str | None = None
    dns: tuple[str, ...] = ()
    egress: tuple[str, ...] = (INTERNET,)
    deny: tuple[str, ...] = ()
    never: tuple[tuple[str, int], ...] = ()
    jobs_at_most: int = JOBS_AT_MOST

    def save(self, home: str) -> None:
        path = f"{home}/{FILE}"
        with open(f"{path}.new", "w", encoding="ascii") as file:
            json.dump(asdict(self), file)
        os.rename(f"{path}.new", path)

    @classmethod
    def load(cls, home: str) -> Self:
        """Raises HostError."""
        path = f"{home}/{FILE}"
        try:
            with open(path, encoding="ascii") as file:
                fields = json.load(file)
            for name in ("dns", "egress", "deny"):
                fields[name] = tuple(fields[name])
            fields["never"] = tuple((address, port) for address, port in fields["never"])
            return cls(**fields)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise HostError("read", path, None, "restart the worker: it writes this file", reason=str(error)) from error
