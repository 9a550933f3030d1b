"""Vectors: rows of dense ones in a matrix, rows of sparse ones compressed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]
# Milvus does not take 2^32 - 1, and the store needs a number of its own.
MAX_TERM = 2**32 - 3


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """Rows of weighted terms, of 0 to MAX_TERM each, none of a weight below 0.

    Row i weighs the terms `terms[starts[i]:starts[i + 1]]`, ascending and each once, by the weights at the same places.
    `starts` is int64 (rows + 1,), `terms` uint32, `weights` float32.
    """

    starts: npt.NDArray[np.int64]
    terms: npt.NDArray[np.uint32]
    weights: npt.NDArray[np.float32]

    @classmethod
    def of(cls, rows: Sequence[Mapping[int, float]]) -> Sparse:
        """Of a mapping from terms to weights for each row."""
        return cls.concatenated([cls._row(row) for row in rows])

    @classmethod
    def of_dense(cls, matrix: Matrix) -> Sparse:
        """What is not 0 of float32 (rows, terms): column i is the term i."""
        rows, terms = np.nonzero(matrix)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=len(matrix)))])
        return cls(starts.astype(np.int64), terms.astype(np.uint32), matrix[rows, terms].astype(np.float32))

    @classmethod
    def _row(cls, row: Mapping[int, float]) -> Sparse:
        terms = np.fromiter(row.keys(), dtype=np.uint32, count=len(row))
        weights = np.fromiter(row.values(), dtype=np.float32, count=len(row))
        order = np.argsort(terms)
        return cls(np.array([0, len(row)], dtype=np.int64), terms[order], weights[order])

    @classmethod
    def concatenated(cls, parts: Sequence[Sparse]) -> Sparse:
        """The rows of all parts, in order."""
        counts = np.concatenate([np.zeros(1, np.int64), *(np.diff(part.starts) for part in parts)])
        terms = [part.terms for part in parts] or [np.empty(0, np.uint32)]
        weights = [part.weights for part in parts] or [np.empty(0, np.float32)]
        return cls(np.cumsum(counts), np.concatenate(terms), np.concatenate(weights))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> Sparse:
        """A row, as the only one."""
        begin, end = int(self.starts[row]), int(self.starts[row + 1])
        return Sparse(np.array([0, end - begin], dtype=np.int64), self.terms[begin:end], self.weights[begin:end])

    def __iter__(self) -> Iterator[Sparse]:
        return (self[row] for row in range(len(self)))

    def dot(self, row: Sparse) -> Matrix:
        """The inner products of all rows with one, float32 (rows,)."""
        at = np.searchsorted(row.terms, self.terms)
        at[at == len(row.terms)] = 0
        shared = row.terms[at] == self.terms if len(row.terms) else np.zeros(len(self.terms), dtype=bool)
        products = np.where(shared, self.weights * row.weights[at] if len(row.terms) else 0.0, 0.0)
        sums = np.concatenate([np.zeros(1), np.cumsum(products, dtype=np.float64)])
        scores: Matrix = (sums[self.starts[1:]] - sums[self.starts[:-1]]).astype(np.float32)
        return scores

    def is_well_formed(self) -> bool:
        """Whether the rows lie within the terms, terms ascend within each row up to MAX_TERM, and all weights are
        finite and none is less than 0."""
        starts, terms = self.starts, self.terms
        if len(starts) < 1 or starts[0] != 0 or starts[-1] != len(terms) or len(terms) != len(self.weights):
            return False
        if (np.diff(starts) < 0).any() or not np.isfinite(self.weights).all() or (self.weights < 0).any():
            return False
        if (terms > MAX_TERM).any():
            return False
        ascends = np.diff(terms.astype(np.int64)) > 0
        begins = starts[1:-1][(starts[1:-1] > 0) & (starts[1:-1] < len(terms))]
        ascends[begins - 1] = True
        return bool(ascends.all())


Vectors = Matrix | Sparse


def to_bytes(row: Matrix | Sparse) -> bytes:
    """One vector: float32 (dimension,), or a single row of terms and their weights."""
    if isinstance(row, Sparse):
        return row.terms.astype("<u4").tobytes() + row.weights.astype("<f4").tobytes()
    return row.astype("<f4", copy=False).tobytes()


def from_bytes(content: bytes, kind: str, dimension: int) -> Matrix | Sparse | None:
    """A vector as `to_bytes` wrote it; None of bytes that cannot be one."""
    if kind == "sparse":
        if len(content) % 8:
            return None
        count = len(content) // 8
        starts = np.array([0, count], dtype=np.int64)
        row = Sparse(starts, np.frombuffer(content, "<u4", count), np.frombuffer(content, "<f4", count, 4 * count))
        return row if row.is_well_formed() else None
    return np.frombuffer(content, dtype="<f4") if len(content) == 4 * dimension else None


def shape_of(vectors: Vectors) -> tuple[str, int]:
    """What vectors and the space that they are of have in common: kind and dimension."""
    return ("sparse", 1) if isinstance(vectors, Sparse) else ("dense", vectors.shape[1])


def are_well_formed(vectors: Vectors) -> bool:
    return vectors.is_well_formed() if isinstance(vectors, Sparse) else bool(np.isfinite(vectors).all())


def score(metric: str, query: Matrix | Sparse, vector: Matrix | Sparse) -> float:
    """How near one vector, float32 (dimension,) or a single row, is to a query: higher is nearer, whatever the metric.
    Sparse ones are compared by inner product."""
    if isinstance(query, Sparse) or isinstance(vector, Sparse):
        assert isinstance(query, Sparse)
        assert isinstance(vector, Sparse)
        return float(vector.dot(query)[0])
    if metric == "l2":
        return -float(np.sum((query - vector) ** 2))
    product = float(query @ vector)
    if metric == "ip":
        return product
    return product / max(float(np.linalg.norm(query) * np.linalg.norm(vector)), 1e-12)


def as_dense(vectors: Vectors) -> Matrix:
    """For what is only done with dense ones, such as a model change by a map. Raises TypeError."""
    if isinstance(vectors, Sparse):
        raise TypeError("expected dense vectors, found sparse ones")
    return vectors
