"""Sparse vectors where Milvus has none: candidates by a sketch, exact scores of the candidates here.

A sketch is the row hashed into a dense vector, each term with a sign that its hash gives: the inner product of two
sketches is that of the rows, and noise of mean 0 that falls with the width (Weinberger et al., Feature Hashing for
Large Scale Multitask Learning, ICML 2009). The weights themselves are stored beside it, as text.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from driftline.core.vectors import Matrix, Sparse

# Floats of a sketch: docs/decisions/0019-sparse-vectors.md has what other widths find.
WIDTH = 2_048
# Candidates of a search, at least, and for each hit that is wanted.
_CANDIDATES, _CANDIDATES_PER_HIT = 1_000, 10


def sketch(rows: Sparse) -> Matrix:
    """float32 (rows, WIDTH)."""
    found = np.zeros((len(rows), WIDTH), dtype=np.float32)
    mixed = _mixed(rows.terms)
    place = (mixed & np.uint32(WIDTH - 1)).astype(np.int64)
    sign = np.where(mixed >> np.uint32(31), np.float32(1), np.float32(-1))
    row = np.repeat(np.arange(len(rows)), np.diff(rows.starts))
    np.add.at(found, (row, place), sign * rows.weights)
    return found


def _mixed(terms: np.ndarray) -> np.ndarray:
    """32 bits of each term in which every bit depends on all of the term's (the finaliser of MurmurHash3)."""
    h = terms.astype(np.uint32)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


def candidates(limit: int, most: int) -> int:
    """How many rows are scored exactly for the best `limit`."""
    return min(most, max(_CANDIDATES, _CANDIDATES_PER_HIT * limit))


def to_text(row: Sparse) -> str:
    """The terms of one row, then their weights, little endian, in base64."""
    content = row.terms.astype("<u4").tobytes() + row.weights.astype("<f4").tobytes()
    return base64.b64encode(content).decode()


def of_texts(texts: Sequence[str]) -> Sparse:
    """Rows as `to_text` wrote them."""
    contents = [base64.b64decode(text) for text in texts]
    counts = np.array([len(content) // 8 for content in contents], dtype=np.int64)
    terms = [np.frombuffer(c, "<u4", n) for c, n in zip(contents, counts.tolist(), strict=True)]
    weights = [np.frombuffer(c, "<f4", n, 4 * n) for c, n in zip(contents, counts.tolist(), strict=True)]
    return Sparse(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        np.concatenate([np.empty(0, np.uint32), *terms]),
        np.concatenate([np.empty(0, np.float32), *weights]),
    )
