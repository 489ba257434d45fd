"""Whether jobs can have a bridge here, whom it lets them reach, and what of this host may be in the way."""

import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dayfly.config import Settings
from dayfly.doctor_check import Check, missing, ok, warning
from dayfly.jobs.errors import ConfigError

if TYPE_CHECKING:
    from dayfly.runtime.network.settings import NetworkSettings

_WITHOUT = "jobs that demand a bridge are refused, `dayfly run` gives the others none"


def examine(settings: Settings) -> Iterator[Check]:
    """Nothing of the host is changed."""
    from dayfly.runtime.idrange import own_id_map
    from dayfly.runtime.network.possible import why_not
    from dayfly.runtime.network.uplink_program import UplinkProgram
    from dayfly.settings import worker_settings
    from dayfly.worker.bridging import network_settings

    if not settings.is_on("network.bridge"):
        yield ok("bridge", f"switched off ({settings.origin('network.bridge')}): {_WITHOUT}")
        return
    try:
        network = network_settings(worker_settings(settings, url="", is_embedded=False, ends_when_idle=False))
    except ConfigError as error:
        yield missing("bridge", error.message, error.remedy or "")
        return
    fault = why_not(network)
    if fault is not None:
        yield warning("bridge", f"{fault.message}; {_WITHOUT}", fault.remedy or "")
        return
    if own_id_map() is not None:
        yield ok("bridge", f"in a namespace of this user's own, which {UplinkProgram.find().path} joins to the host's")
        yield _names(network.dns)
        return
    yield _range(network)
    yield _ipv6()
    yield _names(network.dns)
    yield from _other_policy()


def _range(network: "NetworkSettings") -> Check:
    from dayfly.runtime.network.addresses import find_addresses
    from dayfly.runtime.network.routes import uplinks

    addresses, ways = find_addresses(network), ", ".join(uplinks())
    way = f"by {ways}" if ways else "but this host has no default route"
    text = f"jobs get {addresses.subnet4}, {addresses.capacity} at a time, and reach the internet {way}"
    if not ways:
        return warning("bridge", text, "add a default route")
    return ok("bridge", f"{text}; forwarding is switched on for these links and `{addresses.bridge}` alone")


def _ipv6() -> Check:
    from dayfly.runtime.network.forwarding import can_force_ipv6, has_ipv6

    if can_force_ipv6():
        return ok("  IPv6", "forwarded for jobs, link by link")
    if has_ipv6():
        return ok("  IPv6", "forwarded by this host")
    remedy = "sysctl net.ipv6.conf.all.forwarding=1 (and accept_ra=2 on links with router advertisements)"
    return warning(
        "  IPv6", "not forwarded by this host, and this kernel cannot for single links: jobs have none", remedy
    )


def _names(dns: tuple[str, ...]) -> Check:
    from dayfly.runtime.network.resolvers import find_resolvers

    found = find_resolvers(dns)
    if found.servers:
        return ok("  name servers", f"{', '.join(found.servers)}: port 53 of each is open to jobs")
    if found.loopback:
        return ok("  name servers", f"{found.loopback} of this host, by way of the gateway")
    return warning("  name servers", "none that a job can reach", "set [network] dns to name servers")


def _other_policy() -> Iterator[Check]:
    """A packet passes when no table drops it: one that drops by default stops jobs however open ours is."""
    from dayfly.runtime.network.nft import find_nft

    program = find_nft()
    if program is None:
        return
    for family in ("ip", "ip6"):
        listed = subprocess.run(
            [program, "list", "chain", family, "filter", "FORWARD"], capture_output=True, text=True, check=False
        )
        if "policy drop" in listed.stdout:
            remedy = f"{family}tables -I FORWARD -i df-+ -j ACCEPT, and the same with -o (Docker: in DOCKER-USER)"
            text = f"table {family} filter drops what it does not know, which jobs' packets are"
            yield warning("  forwarding", text, remedy)
