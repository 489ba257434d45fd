"""Whether this worker can have a bridge for jobs, found out without changing the host, and without pyroute2."""

import dataclasses
import os

from dayfly.jobs.errors import HostError, Unsupported
from dayfly.runtime.idrange import own_id_map
from dayfly.runtime.network import nft, resolvers
from dayfly.runtime.network.addresses import find_addresses
from dayfly.runtime.network.ruleset import Policy, ruleset
from dayfly.runtime.network.settings import NetworkSettings
from dayfly.runtime.network.trial import try_out

_SWITCHES = "/proc/sys/net/ipv4/conf/all/forwarding"
_TRIED_PREFIX = 29  # of a policy that is tried and not kept: few ports make it quick


def why_not(settings: NetworkSettings) -> HostError | None:
    """Why it cannot; None when there is an address range, a way to forward, and a kernel that takes the policy."""
    try:
        if own_id_map() is None:
            _try_host(settings)
        else:
            try_out(settings)
    except HostError as error:
        return error
    return None


def _try_host(settings: NetworkSettings) -> None:
    addresses = find_addresses(settings)
    if not os.access(_SWITCHES, os.W_OK):
        raise Unsupported("switch forwarding on in", "/proc/sys/net", remedy="run the worker where it is writable")
    few = next(addresses.subnet4.subnets(new_prefix=max(_TRIED_PREFIX, addresses.subnet4.prefixlen)))
    tried = dataclasses.replace(addresses, subnet4=few)
    nft.apply(ruleset(Policy(tried, settings, resolvers.find_resolvers(settings.dns))), is_check=True)
