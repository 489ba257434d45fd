"""Ports of the host that lead to a job on the bridge. Who publishes one also withdraws it.

What is left of a job that was killed goes when its place is given to the next one (`job_elements.py`).
"""

from dataclasses import dataclass

from dayfly.runtime.network import nft


@dataclass(frozen=True, slots=True)
class Port:
    """`protocol` is tcp or udp; `host_port`, of every address of this host but loopback, leads to `address`:`port`."""

    protocol: str
    host_port: int
    address: str
    port: int

    @property
    def _map(self) -> str:
        return "published6" if ":" in self.address else "published4"

    @property
    def _key(self) -> str:
        return f"{self.protocol} . {self.host_port}"

    def element(self, table: str) -> str:
        return f"element inet {table} {self._map} {{ {self._key} : {self.address} . {self.port} }}\n"


def publish(table: str, port: Port) -> None:
    """Lead a port of the host to the job. Raises HostError, also when another job has it."""
    nft.apply(f"create {port.element(table)}")


def withdraw(table: str, port: Port) -> None:
    """Take it back. Raises HostError when it is not published."""
    nft.apply(f"delete {port.element(table)}")
