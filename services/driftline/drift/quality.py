"""Comparing two ways of answering the same queries: paired bootstrap intervals and the two ratios of an upgrade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def paired(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95, draws: int = 2_000) -> Interval:
    """Mean of ours - theirs per query, with a paired bootstrap interval (Sakai 2006). Deterministic.

    Raises ValueError when the two are not of the same queries.
    """
    a, b = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    if len(a) != len(b) or len(a) == 0:
        raise ValueError(f"paired measures need the same queries, found {len(a)} and {len(b)}")
    difference = a - b
    rng = np.random.default_rng(0)
    means = np.array([difference[rng.integers(0, len(a), len(a))].mean() for _ in range(draws)])
    tail = (1 - level) / 2
    return Interval(float(difference.mean()), float(np.quantile(means, tail)), float(np.quantile(means, 1 - tail)))


def recovered(served: float, naive: float, reindexed: float) -> float | None:
    """R = (M - F) / (O - F): share of the gap between doing it wrong and re-indexing. None when there is no gap."""
    return None if reindexed <= naive else (served - naive) / (reindexed - naive)


def captured(served: float, status_quo: float, reindexed: float, gap: Interval) -> float | None:
    """U = (M - SQ) / (O - SQ): share of the upgrade that users already get; below 0 is worse than doing nothing.

    None unless the upgrade is real: `gap`, the interval of O - SQ, must lie above zero.
    """
    return None if gap.low <= 0 else (served - status_quo) / (reindexed - status_quo)
