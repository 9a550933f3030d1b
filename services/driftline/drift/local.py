"""A correction from the nearest sampled texts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from driftline.drift.affine import ScaledProcrustes
from driftline.drift.base import Compensator, Matrix, Pairs, Wide, unit

# Sampled texts kept: 4,096 x (384 + 384) float32 are 12 MB, and one query costs one product with them.
MAX_SAMPLE = 4_096
_NEIGHBOURS = 20
_TEMPERATURE = 0.1


class LocalResidual(Compensator):
    """Scaled Procrustes, corrected by the residuals of the 20 nearest sampled texts in the new space.

    SDC (Yu et al., CVPR 2020) with softmax weights, on residuals of a map instead of on raw drift. It pays once the
    sample covers what is asked for (a growing backfill); with few pairs it is noise.
    """

    kind = "local_residual"

    def __init__(self, base: ScaledProcrustes, sample: Matrix, residuals: Matrix) -> None:
        self._base = base
        self._sample = sample
        self._residuals = residuals
        self.new_dimension, self.old_dimension = base.new_dimension, base.old_dimension

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> LocalResidual:
        base = ScaledProcrustes.fit(pairs, seed)
        if len(pairs) > MAX_SAMPLE:
            pairs = pairs.take(np.sort(np.random.default_rng(seed).permutation(len(pairs))[:MAX_SAMPLE]))
        return cls(base, unit(pairs.new), (pairs.old - base.apply(pairs.new)).astype(np.float32))

    def _map(self, queries: Wide) -> Wide:
        mapped = unit(self._base._map(queries)).astype(np.float64)
        cosines = unit(queries) @ self._sample.T
        count = min(_NEIGHBOURS, cosines.shape[1])
        nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
        near = np.take_along_axis(cosines, nearest, axis=1).astype(np.float64)
        weights = np.exp((near - near.max(axis=1, keepdims=True)) / _TEMPERATURE)
        weights /= weights.sum(axis=1, keepdims=True)
        corrected: Wide = mapped + np.einsum("qk,qkd->qd", weights, self._residuals[nearest])
        return corrected

    def arrays(self) -> Mapping[str, Matrix]:
        base = {f"base.{name}": array for name, array in self._base.arrays().items()}
        return {**base, "sample": self._sample, "residuals": self._residuals}

    @classmethod
    def build(cls, arrays: Mapping[str, Matrix], new: int, old: int) -> LocalResidual:
        base = {name.removeprefix("base."): a for name, a in arrays.items() if name.startswith("base.")}
        return cls(ScaledProcrustes.build(base, new, old), arrays["sample"], arrays["residuals"])
