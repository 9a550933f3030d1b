"""What every compensator is, and the arithmetic they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

# Below this a vector has no direction: dividing by its norm would only amplify rounding.
_TINY = 1e-12


def unit(rows: npt.NDArray[np.floating]) -> Matrix:
    """Rows scaled to length one, float32. A zero row stays zero."""
    wide = np.asarray(rows, dtype=np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    scaled: Matrix = (wide / np.maximum(norms, _TINY)).astype(np.float32)
    return scaled


def fitted_to(rows: npt.NDArray[np.floating], dimension: int) -> Wide:
    """Rows cut or padded with zeros to `dimension` columns."""
    wide = np.asarray(rows, dtype=np.float64)
    if wide.shape[1] >= dimension:
        return wide[:, :dimension]
    return np.pad(wide, ((0, 0), (0, dimension - wide.shape[1])))


@dataclass(frozen=True, slots=True)
class Pairs:
    """The same texts in both spaces: `new` float32 (n, new dimension), `old` float32 (n, old dimension).

    Rows are unit vectors. Raises ValueError when the two do not pair up or hold something that is no number.
    """

    new: Matrix
    old: Matrix

    def __post_init__(self) -> None:
        if self.new.ndim != 2 or self.old.ndim != 2 or len(self.new) != len(self.old):
            raise ValueError(f"pairs need rows of both spaces, found {self.new.shape} and {self.old.shape}")
        if len(self.new) < 2:
            raise ValueError(f"at least two pairs are needed to fit a map, found {len(self.new)}")
        if not (np.isfinite(self.new).all() and np.isfinite(self.old).all()):
            raise ValueError("pairs hold NaN or infinity")

    def __len__(self) -> int:
        return len(self.new)

    def take(self, rows: npt.NDArray[np.integer]) -> Pairs:
        return Pairs(self.new[rows], self.old[rows])

    def split(self, share: float, seed: int) -> tuple[Pairs, Pairs]:
        """(the rest, `share` of the pairs), at random; each has at least two."""
        order = np.random.default_rng(seed).permutation(len(self))
        held = min(len(self) - 2, max(2, round(share * len(self))))
        return self.take(np.sort(order[held:])), self.take(np.sort(order[:held]))


class Compensator(ABC):
    """A map of query vectors from the new space into an older one.

    `apply` takes float32 (n, new dimension) and answers float32 (n, old dimension), each row a unit vector: scores
    of two indexes can only be merged when no query is longer than another (QDC leaves them unnormalised).
    """

    kind: ClassVar[str]
    new_dimension: int
    old_dimension: int

    @classmethod
    @abstractmethod
    def fit(cls, pairs: Pairs, seed: int = 0) -> Compensator:
        """Fit to pairs. Raises ValueError when this kind cannot map these two spaces."""

    @abstractmethod
    def _map(self, queries: Wide) -> npt.NDArray[np.floating]:
        """The mapped rows, of any length."""

    @abstractmethod
    def arrays(self) -> Mapping[str, npt.NDArray[np.float32]]:
        """What must be kept to build this map again."""

    @classmethod
    @abstractmethod
    def build(cls, arrays: Mapping[str, npt.NDArray[np.float32]], new: int, old: int) -> Compensator:
        """The map of kept arrays, between spaces of these dimensions."""

    def apply(self, queries: Matrix) -> Matrix:
        """Raises ValueError for vectors of another dimension than the new space's."""
        if queries.ndim != 2 or queries.shape[1] != self.new_dimension:
            raise ValueError(f"expected queries of dimension {self.new_dimension}, found shape {queries.shape}")
        return unit(self._map(queries.astype(np.float64)))
