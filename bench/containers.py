"""(a) One container around /bin/true, start to exit."""

from __future__ import annotations

import shutil
import statistics
from contextlib import ExitStack
from pathlib import Path

from bench.floor import Floor
from bench.peers import peers
from bench.root import make_root
from bench.rounds import in_turn, table
from bench.warm import WarmContainers
from dayfly.runtime.images.store import ImageStore


def report(directory: Path, rounds: int) -> None:
    root = make_root(directory / "root")
    home = directory / "warm-home"
    images = ImageStore(home)
    image = images.import_(str(root), "bench").image
    with ExitStack() as stack:
        floor = stack.enter_context(Floor(root, directory / "floor"))
        warm = stack.enter_context(WarmContainers(home))
        contestants = {
            "floor": floor.run,
            "dayfly": warm.contestant("Dayfly", image),
            "dayfly host": warm.contestant("Dayfly, image host", images.resolve("host")),
            **peers(root, directory / "peers"),
        }
        if shutil.which("runc") is not None:
            over_runc = stack.enter_context(WarmContainers(directory / "runc-home", "runc"))
            contestants["dayfly over runc"] = over_runc.contestant("Dayfly over runc", image)
        figures = in_turn(contestants, rounds)
    base = "C floor, start to exit"
    table("(a) a container around /bin/true", figures, "ms", base)
    _against_goals({name: statistics.median(values) for name, values in figures.items()})


def _against_goals(median: dict[str, float]) -> None:
    critical, total = median["Dayfly: go to exit seen"], median["Dayfly: all work"]
    print(f"critical path: {critical / median['C floor, start to exit']:.2f} x the floor (goal 1.25)")
    print(f"all work: {total / median['C floor, with making and removing']:.2f} x the floor's all work (goal 3)")
    for name, goal, goal_total in (("runc run (no overlay)", 5, 2), ("podman run --rootfs :O", 30, 12)):
        if name in median:
            faster, less = median[name] / critical, median[name] / total
            print(
                f"{name}: critical path {faster:.1f} x faster (goal {goal}), all work {less:.1f} x (goal {goal_total})"
            )
