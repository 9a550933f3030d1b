"""Fitting the curve that turns scores of an index into probabilities of relevance. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from driftline.core.errors import InvalidRequest

_STEPS = 100
_ENOUGH = 1e-9


def fit_logistic(scores: Sequence[float], relevant: Sequence[bool]) -> tuple[float, float]:
    """Slope (0 or more) and intercept of the logistic curve that makes the judgements most likely.

    Newton's method with the targets of Platt (1999), which keep the curve finite where scores separate perfectly.
    Raises InvalidRequest where nothing, or everything, is relevant.
    """
    x = np.asarray(scores, dtype=np.float64)
    hits = np.asarray(relevant, dtype=bool)
    positive, negative = int(hits.sum()), int((~hits).sum())
    if not positive or not negative:
        raise InvalidRequest("cannot_calibrate", f"expected hits of both kinds, found {positive} relevant of {len(x)}")
    targets = np.where(hits, (positive + 1) / (positive + 2), 1 / (negative + 2))
    mean, deviation = float(x.mean()), float(x.std()) or 1.0
    rows = np.stack([(x - mean) / deviation, np.ones_like(x)], axis=1)
    weights = np.array([0.0, np.log(positive / negative)])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-(rows @ weights)))
        hessian = (rows * (p * (1 - p))[:, None]).T @ rows + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, rows.T @ (p - targets))
        # A whole step may lead too far, where hardly any hit is relevant.
        while _loss(rows, targets, weights - step) > _loss(rows, targets, weights) and np.abs(step).max() > _ENOUGH:
            step /= 2
        weights = weights - step
        if float(np.abs(step).max()) <= _ENOUGH:
            break
    slope = float(weights[0]) / deviation
    if slope <= 0:
        # Higher scores are no likelier to be relevant: every hit gets the share of relevant ones.
        return 0.0, float(np.log(positive / negative))
    return slope, float(weights[1]) - slope * mean


def _loss(rows: npt.NDArray[np.float64], targets: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    """The negative logarithm of the likelihood."""
    odds = rows @ weights
    return float((np.logaddexp(0, odds) - targets * odds).sum())
