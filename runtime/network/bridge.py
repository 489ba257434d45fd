"""The bridge of one home on its host: brought up for the first job that needs it, taken away after the last.

    up()        bridge, forwarding, policy; may be called again at any time, and brings all as it should be
    mend()      the policy back, when somebody has flushed it
    plug(…)     one job's namespace gets its end of a veth pair; what an earlier job of the place left is gone first
    take_down() nothing of this home's is left; another home's is not looked at

Nothing is handed out and nothing remembered: names and addresses follow from tag and index (`addresses.py`).
"""

import os
import socket

from dayfly.jobs.errors import HostError
from dayfly.runtime.network import forwarding, kept_elements, nft, resolvers
from dayfly.runtime.network.addresses import Addresses, find_addresses
from dayfly.runtime.network.elements import packed
from dayfly.runtime.network.job_elements import Place, own_list, removal_of
from dayfly.runtime.network.links import Plug, links
from dayfly.runtime.network.names import bridge_name, port_prefix, table_name
from dayfly.runtime.network.outer_host import OuterHost
from dayfly.runtime.network.places import Places
from dayfly.runtime.network.published import entries
from dayfly.runtime.network.routes import uplinks
from dayfly.runtime.network.ruleset import Policy, removal, ruleset
from dayfly.runtime.network.settings import NetworkSettings
from dayfly.runtime.network.uplink_program import RESOLVER
from dayfly.runtime.network.watch import has_tables

RESOLV_CONF, HOSTS = "run/resolv.conf", "run/hosts"
_HOSTS = "127.0.0.1 localhost dayfly\n::1 localhost ip6-localhost ip6-loopback\n"


class Bridge:
    """The bridge of the home whose settings these are, in the network namespace that this process is in.

    `outer`: the host, where that namespace is an ordinary user's own (`uplink.py`).
    """

    def __init__(self, home: str, settings: NetworkSettings, outer: OuterHost | None = None) -> None:
        self._home = home
        self._outer = outer
        self._settings = settings
        self._places = Places(home)
        self._stamp: tuple[object, ...] = ()
        self._has_ipv6 = True
        self._addresses: Addresses | None = None

    def up(self) -> Addresses:
        """Raises HostError."""
        stamp = self._stamp_of_host()
        self._has_ipv6 = forwarding.has_ipv6()
        addresses = find_addresses(self._settings, self._outer.ranges4() if self._outer else ())
        with links() as found:
            found.make_bridge(addresses, self._has_ipv6)
        ways = uplinks()
        policy = self._policy(addresses, ways)
        self._write_sysctls(policy)
        nft.apply(ruleset(policy) + self._elements_of_jobs())
        forwarding.open_links(addresses.bridge, ways)
        self._write_names(policy)
        self._addresses, self._stamp = addresses, stamp  # only what is done counts: mend() tries again
        return addresses

    def plug(self, plug: Plug, allow: tuple[str, ...] | None, netns_fd: int) -> Place:
        """Put the namespace on the bridge; `allow` is the job's own list, None for the operator's. Raises HostError."""
        addresses = self._current()
        if plug.index >= addresses.capacity:
            remedy = "set [network] subnet to a larger range, or run fewer jobs at a time"
            raise HostError("find an address for the job in", str(addresses.subnet4), None, remedy, reason="all in use")
        place = self._place(addresses, plug.index)
        with links() as found:
            found.remove(addresses.port(plug.index))
            if _forget(place):
                self._places.soil(plug.index)  # a port that led there may have made connections until now
            self._places.take(plug.index, addresses)
            kept_elements.drop(self._home, plug.index, kept_elements.LIST, kept_elements.PORTS)
            script = own_list(place, allow) if allow is not None else ""
            if script:
                kept_elements.keep(self._home, plug.index, kept_elements.LIST, script)
                nft.apply(script)
            found.plug(addresses, plug, netns_fd, self._has_ipv6)
        return place

    def forget(self, index: int) -> None:
        """A job has ended to which something was refused: its counters need wait for no successor."""
        if self._addresses is not None:
            _forget(self._place(self._addresses, index))

    def mend(self) -> None:
        """Bring the policy back when it has been deleted, or is another host's by now, unless the bridge has gone too.

        Raises HostError, OSError.
        """
        if self._is_up() and (self._stamp != self._stamp_of_host() or not has_tables(table_name(self._settings.tag))):
            self.up()

    def sweep(self) -> None:
        """Take out the ports that lead to a place without a link: their job was killed. Raises HostError, OSError."""
        if self._addresses is None:
            return
        table = self._addresses.table
        published = list(entries(table))  # mostly nothing, and this is asked at every change of a link
        alive = self._places_with_link() if published else ()
        dead = [each for each in published if self._addresses.index_of(packed(each.address)) not in alive]
        if dead:
            nft.apply("".join(f"delete {each.text(table)}" for each in dead))

    def _elements_of_jobs(self) -> str:
        """What a policy that was flushed has to have again; nothing that it has already is in anybody's way."""
        return kept_elements.of_places(self._home, self._places_with_link())

    def _places_with_link(self) -> set[int]:
        names = (name for _, name in socket.if_nameindex())
        prefix = port_prefix(self._settings.tag)
        return {int(name.removeprefix(prefix), 16) for name in names if name.startswith(prefix)}

    def _current(self) -> Addresses:
        """The bridge as it is; brought up when it is not there, or what it was made for has changed."""
        if self._addresses is None or not self._is_up():
            return self.up()
        self.mend()
        return self._addresses

    def _is_up(self) -> bool:
        try:
            socket.if_nametoindex(bridge_name(self._settings.tag))
        except OSError:
            return False
        return True

    def _policy(self, addresses: Addresses, ways: list[str]) -> Policy:
        found = resolvers.find_resolvers(self._settings.dns)
        if self._outer is None:
            closed = forwarding.claim_links(addresses.tag, ways)
            return Policy(addresses, self._settings, found, closed, self._has_ipv6)
        found, outer = found.forwarded_by(RESOLVER), self._outer.addresses()
        return Policy(addresses, self._settings, found, (), self._has_ipv6, outer)

    def _stamp_of_host(self) -> tuple[object, ...]:
        """Differs when name servers, uplinks, the host's own addresses as far as they count, or whether it forwards by
        itself have changed."""
        outer = () if self._outer is None else self._outer.addresses()
        return (*resolvers.stamp(), *uplinks(), *forwarding.global_switches(), *outer)

    def _place(self, addresses: Addresses, index: int) -> Place:
        address6 = addresses.ipv6(index) if self._has_ipv6 else None
        return Place(addresses.table, addresses.ipv4(index), address6)

    def _write_sysctls(self, policy: Policy) -> None:
        bridge = policy.addresses.bridge
        values = {
            f"ipv4/conf/{bridge}/rp_filter": "1",
            f"ipv4/conf/{bridge}/send_redirects": "0",
            f"ipv4/conf/{bridge}/accept_redirects": "0",
            f"ipv4/conf/{bridge}/route_localnet": "1" if policy.resolvers.loopback else "0",
        }
        if self._has_ipv6:
            values |= {f"ipv6/conf/{bridge}/{name}": "0" for name in ("accept_ra", "accept_redirects", "autoconf")}
        for name, value in values.items():
            try:
                forwarding.write_sysctl(name, value)
            except OSError as error:
                raise HostError("set", f"/proc/sys/net/{name}", error.errno) from error

    def _write_names(self, policy: Policy) -> None:
        """Beside the policy that lets these servers through; renamed, since a job may be mounting them."""
        texts = {RESOLV_CONF: policy.resolvers.resolv_conf(policy.addresses.gateway4), HOSTS: _HOSTS}
        for name, text in texts.items():
            path = f"{self._home}/{name}"
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
                os.fchmod(file.fileno(), 0o644)
            os.rename(f"{path}.new", path)


def _forget(place: Place) -> bool:
    """The counters of the last job of this place, its own list, its ports; whether there was anything."""
    try:
        script = removal_of(place)
    except OSError as error:
        raise HostError("forget what was refused to the last job of", place.address4, error.errno) from error
    if script:
        nft.apply(script)
    return bool(script)


def take_down(tag: str) -> bool:
    """Take away bridge, ports, policy and forwarding of one home; False when there was nothing. Raises HostError."""
    with links() as found:
        for port in found.ports(tag):
            found.remove(port)
        was_there = found.remove(bridge_name(tag))
    if was_there:
        nft.apply(removal(table_name(tag)))
        forwarding.close_links(tag)
    return was_there
