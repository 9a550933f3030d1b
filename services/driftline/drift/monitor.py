"""Whether a fitted map still fits: what flows now against what it was fitted on. Pure.

Three signs, none of which needs judgements: the residual of the map on pairs of today, how much of the old encoder's
top ten the map still finds, and how far today's texts lie from the fit sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from driftline.drift.base import Compensator, Matrix, unit


@dataclass(frozen=True, slots=True)
class Baseline:
    """The fit sample, as the monitor compares with it: the residual on held-out pairs, the mean of the new vectors and
    their root mean square distance from it."""

    residual: float
    mean: tuple[float, ...]
    spread: float


def baseline(compensator: Compensator, new: Matrix, old: Matrix) -> Baseline:
    """`new` and `old` are held-out pairs, float32 (n, dimension): on the fitted ones a map looks better than it is."""
    mean = new.mean(axis=0)
    spread = float(np.sqrt(((new - mean) ** 2).sum(axis=1).mean()))
    return Baseline(residual(compensator, new, old), tuple(round(float(v), 6) for v in mean), spread)


def residual(compensator: Compensator, new: Matrix, old: Matrix) -> float:
    """Mean of 1 - cosine between the mapped new vectors and the old ones of the same texts, rows paired."""
    return float(1.0 - (compensator.apply(new) * unit(old)).sum(axis=1).mean())


def shift(known: Baseline, vectors: Matrix) -> float:
    """Distance of the mean from the fit sample's, in units of its spread. About 1 / sqrt(n) when nothing has moved."""
    moved = vectors.mean(axis=0) - np.asarray(known.mean, dtype=np.float32)
    return float(np.linalg.norm(moved)) / max(known.spread, 1e-9)


def overlap(ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], k: int = 10) -> float:
    """Mean share of the first k of `theirs` that is among the first k of `ours`. Queries without hits do not count."""
    shares = [
        len(set(a[:k]) & set(b[:k])) / min(k, len(b)) for a, b in zip(ours, theirs, strict=True) if b
    ]  # fmt: skip
    return sum(shares) / len(shares) if shares else 0.0
