"""(n) What the bridge costs a container: none against bridge, in a network namespace of the bench's own."""

from __future__ import annotations

import statistics
from pathlib import Path

from bench.rounds import in_turn, table
from bench.warm import WarmContainers
from dayfly.runtime import syscalls
from dayfly.runtime.images.store import ImageStore
from dayfly.worker.bridging import leave_bridge
from dayfly.worker.settings import Networking

_NONE, _BRIDGE = "network: none", "network: bridge"


def report(directory: Path, rounds: int) -> None:
    """Leaves this process in the namespace: to be the last part of a run."""
    syscalls.unshare(syscalls.CLONE_NEWNET)
    home = directory / "network-home"
    images = ImageStore(home)
    with WarmContainers(home, network=Networking(bridge=True)) as warm:
        image = images.resolve("host")
        contestants = {
            _NONE: warm.contestant(_NONE, image),
            _BRIDGE: warm.contestant(_BRIDGE, image, network="bridge"),
        }
        figures = in_turn(contestants, rounds)
        tag = warm.tag
    leave_bridge(tag)
    seen = "go to exit seen"
    table("(n) what the bridge costs", figures, "ms", f"{_NONE}: {seen}")
    extra = statistics.median(figures[f"{_BRIDGE}: {seen}"]) - statistics.median(figures[f"{_NONE}: {seen}"])
    print(f"critical path: {extra:.2f} ms more (goal 3)")
