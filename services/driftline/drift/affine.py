"""Closed-form affine maps: rotations, a ridge regression and a low-rank residual."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np
import numpy.typing as npt

from driftline.drift.base import Compensator, Matrix, Pairs, Wide


class Affine(Compensator):
    """`(q - centre) @ matrix + offset`; the kinds differ in how the three are fitted."""

    kind = "affine"

    def __init__(
        self, centre: npt.NDArray[np.floating], matrix: npt.NDArray[np.floating], offset: npt.NDArray[np.floating]
    ) -> None:
        self.centre = np.asarray(centre, dtype=np.float64)
        self.matrix = np.asarray(matrix, dtype=np.float64)
        self.offset = np.asarray(offset, dtype=np.float64)
        self.new_dimension, self.old_dimension = self.matrix.shape

    def _map(self, queries: Wide) -> Wide:
        mapped: Wide = (queries - self.centre) @ self.matrix + self.offset
        return mapped

    def arrays(self) -> Mapping[str, Matrix]:
        return {
            "centre": self.centre.astype(np.float32),
            "matrix": self.matrix.astype(np.float32),
            "offset": self.offset.astype(np.float32),
        }

    @classmethod
    def build(cls, arrays: Mapping[str, Matrix], new: int, old: int) -> Self:
        del new, old
        return cls(arrays["centre"], arrays["matrix"], arrays["offset"])


def _rotation(new: Wide, old: Wide) -> Wide:
    """The matrix with orthonormal rows or columns that carries `new` nearest to `old` (Schönemann 1966).

    For unequal dimensions this is what zero padding the smaller space gives, without the padding: the padded
    cross-covariance has the same non-zero singular vectors.
    """
    left, _, right = np.linalg.svd(new.T @ old, full_matrices=False)
    rotation: Wide = left @ right
    return rotation


class Procrustes(Affine):
    """Orthogonal Procrustes without centring. It collapses when the new space is anisotropic (e5-like)."""

    kind = "procrustes"

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> Self:
        del seed
        new, old = pairs.new.astype(np.float64), pairs.old.astype(np.float64)
        return cls(np.zeros(new.shape[1]), _rotation(new, old), np.zeros(old.shape[1]))


class ScaledProcrustes(Affine):
    """Centred Procrustes whose scale matches the norms: `s (q - mean_new) R + mean_old`, s = |Yc| / |Xc|.

    The least-squares scale tr(S) / |Xc|^2 is smaller than that by the correlation of the two spaces, and shrinks
    every query towards `mean_old`; matching the norms keeps the spread of the old space.
    """

    kind = "scaled_procrustes"

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> Self:
        del seed
        new, old = pairs.new.astype(np.float64), pairs.old.astype(np.float64)
        centre, offset = new.mean(axis=0), old.mean(axis=0)
        new, old = new - centre, old - offset
        rotation = _rotation(new, old)
        # Of the rotated rows, not of the rows: a rotation into fewer dimensions drops a part of their length.
        spread = float(np.linalg.norm(new @ rotation))
        scale = float(np.linalg.norm(old)) / spread if spread > 0 else 1.0
        return cls(centre, scale * rotation, offset)


# Relative to the mean variance of a dimension. From "trust the pairs" to "barely move".
_LAMBDAS = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0)


class _Regression:
    """Ridge regression of `old` on `new`, for any penalty, from one eigendecomposition."""

    def __init__(self, new: Wide, old: Wide) -> None:
        values, self._vectors = np.linalg.eigh(new.T @ new)
        self._values = np.maximum(values, 0.0)
        self._projected = self._vectors.T @ (new.T @ old)
        self._scale = max(float(self._values.mean()), 1e-12)

    def weights(self, penalty: float) -> Wide:
        solved: Wide = self._vectors @ (self._projected / (self._values + penalty * self._scale)[:, None])
        return solved


def _cosine(predicted: Wide, actual: npt.NDArray[np.floating]) -> float:
    norms = np.linalg.norm(predicted, axis=1) * np.linalg.norm(actual, axis=1)
    return float((np.einsum("ij,ij->i", predicted, actual) / np.maximum(norms, 1e-12)).mean())


def _best_penalty(pairs: Pairs, seed: int) -> float:
    """The penalty with the best mean cosine on a held-out tenth of the pairs."""
    if len(pairs) < 20:
        return 1.0
    train, held = pairs.split(0.1, seed)
    new, old = train.new.astype(np.float64), train.old.astype(np.float64)
    centre, offset = new.mean(axis=0), old.mean(axis=0)
    regression = _Regression(new - centre, old - offset)
    return max(_LAMBDAS, key=lambda p: _cosine((held.new - centre) @ regression.weights(p) + offset, held.old))


class Ridge(Affine):
    """Ridge regression of the old vectors on the new ones, centred; the penalty by held-out cosine."""

    kind = "ridge"

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> Self:
        penalty = _best_penalty(pairs, seed)
        new, old = pairs.new.astype(np.float64), pairs.old.astype(np.float64)
        centre, offset = new.mean(axis=0), old.mean(axis=0)
        return cls(centre, _Regression(new - centre, old - offset).weights(penalty), offset)


class LowRank(Affine):
    """Scaled Procrustes plus a ridge-fitted residual of a quarter of the rank.

    The residual form e' = e + BAe is that of Adapted Dense Retrieval; a pure low-rank map instead of a residual
    collapses, because what it leaves out is lost to every query.
    """

    kind = "low_rank"

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> Self:
        base = ScaledProcrustes.fit(pairs, seed)
        new, old = pairs.new.astype(np.float64), pairs.old.astype(np.float64)
        residual = _Regression(new - base.centre, old - base._map(new)).weights(1.0)
        left, values, right = np.linalg.svd(residual, full_matrices=False)
        rank = max(1, min(residual.shape) // 4)
        return cls(base.centre, base.matrix + (left[:, :rank] * values[:rank]) @ right[:rank], base.offset)
