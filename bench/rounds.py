"""Measuring in turn, so that a noisy minute hits all alike, and telling it as ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

Figures = dict[str, list[float]]


def in_turn(contestants: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int, warm_up: int = 2) -> Figures:
    """Run each once a round. A contestant gives one or more named figures of its one run."""
    figures: Figures = {}
    for number in range(-warm_up, rounds):
        for run in contestants.values():
            for name, value in run().items():
                if number >= 0:
                    figures.setdefault(name, []).append(value)
    return figures


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(title: str, figures: Figures, unit: str, base: str, *, is_rate: bool = False) -> None:
    """Medians, spread, and each as a multiple of `base`."""
    against = statistics.median(figures[base])
    print(f"\n{title}\n{'':44} {'median':>9} {'p10':>8} {'p90':>8}  {unit}   x {base}")
    for name, values in sorted(figures.items(), key=lambda each: statistics.median(each[1]), reverse=is_rate):
        median = statistics.median(values)
        low, high = percentile(values, 10), percentile(values, 90)
        print(f"{name:44} {median:9.2f} {low:8.2f} {high:8.2f}  {'':{len(unit)}} {median / against:6.2f}")
