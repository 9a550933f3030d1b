"""Carrying scores of one space onto the scale of another, so that two generations can be merged by score.

Cosines of two encoders are not comparable: one model's 0.4 is another's 0.7. Merging them raw buries one of the two
generations (measured: nDCG falls from .40 to .08 with 5 % re-embedded); merging by rank ignores how good the hits are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from driftline.drift.base import Matrix

Method = Literal["quantile", "moment", "isotonic", "none"]
METHODS: tuple[Method, ...] = ("quantile", "moment", "isotonic", "none")
# Enough to follow the bend of a score distribution, few enough to be noise-free with 2,000 scores.
_KNOTS = 33
# The merged part of a ranking. Beyond it, scores are the bulk of unrelated documents and would dominate the fit.
_DEPTH = 50


@dataclass(frozen=True, slots=True)
class Calibration:
    """A non-decreasing, piecewise linear map of scores: `source` to `target` knots; beyond them, the last slope."""

    source: tuple[float, ...]
    target: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.source) != len(self.target) or len(self.source) < 2:
            raise ValueError("a calibration needs at least two knots")
        if any(b <= a for a, b in zip(self.source, self.source[1:], strict=False)):
            raise ValueError("the source knots of a calibration must grow")
        if any(b < a for a, b in zip(self.target, self.target[1:], strict=False)):
            raise ValueError("a calibration must not reverse an order")

    def apply(self, scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
        values = np.asarray(scores, dtype=np.float64)
        mapped = np.interp(values, self.source, self.target)
        mapped = np.where(values < self.source[0], self.target[0] + _slope(self) * (values - self.source[0]), mapped)
        above = self.target[-1] + _slope(self) * (values - self.source[-1])
        result: npt.NDArray[np.float64] = np.where(values > self.source[-1], above, mapped)
        return result


IDENTITY = Calibration((0.0, 1.0), (0.0, 1.0))


def _slope(calibration: Calibration) -> float:
    """The mean slope over the whole map: the outermost segment alone rests on a handful of scores."""
    run = calibration.source[-1] - calibration.source[0]
    return max((calibration.target[-1] - calibration.target[0]) / run, 1e-6)


@dataclass(frozen=True, slots=True)
class ScoredPairs:
    """Scores of the same (query, document) pairs in both spaces, float64 (n,)."""

    old: npt.NDArray[np.float64]
    new: npt.NDArray[np.float64]


def scored_pairs(mapped: Matrix, queries: Matrix, old: Matrix, new: Matrix, depth: int = _DEPTH) -> ScoredPairs:
    """The top of the rankings of held-out queries over sampled documents.

    `mapped` and `queries` are the queries in the old and the new space, `old` and `new` the same documents in both.
    The i-th best old score stands beside the i-th best new score of the same query: what is compared is how far up
    the scale each rank is, not whether both rank the same document there.
    """
    depth = min(depth, len(old))
    old_scores, new_scores = mapped @ old.T, queries @ new.T
    top_old = -np.sort(-old_scores, axis=1)[:, :depth]
    top_new = -np.sort(-new_scores, axis=1)[:, :depth]
    return ScoredPairs(top_old.ravel().astype(np.float64), top_new.ravel().astype(np.float64))


def fit(pairs: ScoredPairs, method: Method = "quantile") -> Calibration:
    """Fit a calibration. Raises ValueError without at least two different scores on each side."""
    if method == "none":
        return IDENTITY
    if len(pairs.old) < 2 or np.ptp(pairs.old) < 1e-9 or np.ptp(pairs.new) < 1e-9:
        raise ValueError("a calibration needs at least two different scores of each space")
    if method == "moment":
        return _moment(pairs)
    if method == "isotonic":
        return _isotonic(pairs)
    shares = np.linspace(0.0, 1.0, _KNOTS)
    return _knots(np.quantile(pairs.old, shares), np.quantile(pairs.new, shares))


def _moment(pairs: ScoredPairs) -> Calibration:
    slope = float(pairs.new.std() / pairs.old.std())
    low, high = float(pairs.old.min()), float(pairs.old.max())
    mean_old, mean_new = float(pairs.old.mean()), float(pairs.new.mean())
    return Calibration((low, high), (mean_new + slope * (low - mean_old), mean_new + slope * (high - mean_old)))


def _isotonic(pairs: ScoredPairs) -> Calibration:
    """Pool adjacent violators over equally filled bins of the old score."""
    order = np.argsort(pairs.old, kind="stable")
    bins = np.array_split(order, min(_KNOTS, len(order)))
    source = [float(pairs.old[b].mean()) for b in bins]
    blocks: list[tuple[float, int, int]] = []
    for b in bins:
        mean, weight, count = float(pairs.new[b].mean()), len(b), 1
        while blocks and blocks[-1][0] > mean:
            other, other_weight, other_count = blocks.pop()
            mean = (mean * weight + other * other_weight) / (weight + other_weight)
            weight, count = weight + other_weight, count + other_count
        blocks.append((mean, weight, count))
    target = [mean for mean, _, count in blocks for _ in range(count)]
    return _knots(np.array(source), np.array(target))


def _knots(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> Calibration:
    """Knots that grow: of equal sources the last stays."""
    kept: list[tuple[float, float]] = []
    for s, t in zip(source.tolist(), np.maximum.accumulate(target).tolist(), strict=True):
        if kept and s - kept[-1][0] < 1e-9:
            kept[-1] = (kept[-1][0], t)
        else:
            kept.append((s, t))
    if len(kept) < 2:
        raise ValueError("a calibration needs at least two different scores of each space")
    return Calibration(tuple(s for s, _ in kept), tuple(t for _, t in kept))
