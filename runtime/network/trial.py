"""Whether an ordinary user's bridge works here, found out by having one: a namespace, its way out, the policy.

In a process of its own, since nobody could come back from the namespace. Nothing of it is left.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile

from dayfly.jobs.errors import HostError
from dayfly.runtime import syscalls
from dayfly.runtime.network import nft
from dayfly.runtime.network.addresses import find_addresses
from dayfly.runtime.network.outer_host import OuterHost
from dayfly.runtime.network.resolvers import find_resolvers
from dayfly.runtime.network.ruleset import Policy, ruleset
from dayfly.runtime.network.settings import NetworkSettings
from dayfly.runtime.network.uplink import Uplink
from dayfly.runtime.network.uplink_program import REMEDY, RESOLVER, TUN, UplinkProgram

_STEP = "try a bridge of this user's own"
_SECONDS = 20.0  # the agent waits for it, and must not be silent for a lease
_PROGRAM = "import sys; sys.path[:] = {paths!r}; from dayfly.runtime.network.trial import main; main({home!r})"


def try_out(settings: NetworkSettings) -> None:
    """Raises HostError with what is in the way."""
    UplinkProgram.find()
    if nft.find_nft() is None:
        raise HostError(_STEP, None, None, nft.REMEDY, reason="the program nft is not installed")
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise HostError(
            _STEP, TUN, error.errno, f"`modprobe tun; chmod 0666 {TUN}`, as distributions have it"
        ) from error
    with tempfile.TemporaryDirectory(prefix="dayfly-trial-") as home:
        os.mkdir(f"{home}/run")
        settings.save(home)
        command = [sys.executable, "-I", "-c", _PROGRAM.format(paths=sys.path, home=home)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise HostError(_STEP, None, None, REMEDY, reason=f"no answer within {_SECONDS:.0f} s") from error
    if done.returncode:
        raise _fault(done.stdout, done.stderr)


def main(home: str) -> None:
    """In that process: a fault is one JSON object on stdout, and status 1. What it makes is gone with it."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWNS)
        uplink, settings, outer = Uplink(home), NetworkSettings.load(home), OuterHost()
        uplink.make()
        program = uplink.start()
        uplink.enter()
        uplink.await_up(program)
        addresses = find_addresses(settings, outer.ranges4())
        resolvers = find_resolvers(settings.dns).forwarded_by(RESOLVER)
        nft.apply(ruleset(Policy(addresses, settings, resolvers, outer=outer.addresses())))
    except (HostError, OSError) as error:
        fault = error if isinstance(error, HostError) else HostError(_STEP, error.filename, error.errno)
        print(json.dumps(fault.fields()))
        sys.exit(1)


def _fault(said: str, complaints: str) -> HostError:
    with contextlib.suppress(ValueError, TypeError):
        return HostError(**json.loads(said))
    last = complaints.strip().splitlines()
    return HostError(_STEP, None, None, REMEDY, reason=last[-1] if last else "it ended and said nothing")
