"""Maps without a matrix: nothing at all, and QDC's mean drift."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from driftline.drift.base import Compensator, Matrix, Pairs, Wide, fitted_to


class Identity(Compensator):
    """The new query as it is, cut or zero-padded to the old dimension: what happens when nothing is done."""

    kind = "identity"

    def __init__(self, new_dimension: int, old_dimension: int) -> None:
        self.new_dimension, self.old_dimension = new_dimension, old_dimension

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> Identity:
        del seed
        return cls(pairs.new.shape[1], pairs.old.shape[1])

    def _map(self, queries: Wide) -> Wide:
        return fitted_to(queries, self.old_dimension)

    def arrays(self) -> Mapping[str, Matrix]:
        return {}

    @classmethod
    def build(cls, arrays: Mapping[str, Matrix], new: int, old: int) -> Identity:
        del arrays
        return cls(new, old)


class MeanDrift(Compensator):
    """Query drift compensation of Goswami et al. (CoLLAs 2025, arXiv 2506.00037, section 4): subtract the mean drift.

    Meant for a model fine-tuned from the older one, where most of the drift is one common translation. It is a
    translation only: between two different models it does next to nothing.
    """

    kind = "mean_drift"

    def __init__(self, drift: npt.NDArray[np.floating]) -> None:
        self.drift = np.asarray(drift, dtype=np.float64)
        self.new_dimension = self.old_dimension = len(self.drift)

    @classmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> MeanDrift:
        del seed
        if pairs.new.shape[1] != pairs.old.shape[1]:
            raise ValueError("mean drift needs spaces of the same dimension")
        return cls((pairs.new.astype(np.float64) - pairs.old).mean(axis=0))

    def _map(self, queries: Wide) -> Wide:
        return queries - self.drift

    def arrays(self) -> Mapping[str, Matrix]:
        return {"drift": self.drift.astype(np.float32)}

    @classmethod
    def build(cls, arrays: Mapping[str, Matrix], new: int, old: int) -> MeanDrift:
        del new, old
        return cls(arrays["drift"])
