"""How often terms occur in a lexical index, sampled, in a record that a broker takes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from driftline.core.vectors import Sparse

# A record of the control topic must fit the 1 MB that a broker takes by default: these take 8 bytes each.
MAX_TERMS = 65_536
_HEADER = struct.Struct("<4sQI")
_MAGIC = b"DTS1"


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """How many rows (texts) an index has, and in how many of them each of its most frequent terms is.

    `terms` is uint32, ascending; `counts` is float32, and not whole where a sample was scaled up.
    """

    rows: int
    terms: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.float32]

    @classmethod
    def none(cls) -> Statistics:
        return cls(0, np.empty(0, np.uint32), np.empty(0, np.float32))

    @classmethod
    def of(cls, sample: Iterable[Sparse], total: int) -> Statistics:
        """From a sample of an index's rows, scaled up to all `total` of them."""
        parts = list(sample)
        seen = sum(len(part) for part in parts)
        if not seen:
            return cls.none()
        # A term is in a row once.
        terms, counts = np.unique(np.concatenate([part.terms for part in parts]), return_counts=True)
        if len(terms) > MAX_TERMS:
            kept = np.sort(np.argpartition(counts, -MAX_TERMS)[-MAX_TERMS:])
            terms, counts = terms[kept], counts[kept]
        scale = max(1.0, total / seen)
        return cls(max(total, seen), terms.astype(np.uint32), (counts * scale).astype(np.float32))

    def idf(self, terms: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
        """The weight of each term for being rare: ln(1 + (N - n + 1/2) / (n + 1/2)) of N rows with n that have it, as
        Lucene counts it. A term that is not listed counts as one that is in a single row; 1 where nothing is known."""
        if not self.rows:
            return np.ones(len(terms), dtype=np.float32)
        at = np.minimum(np.searchsorted(self.terms, terms), max(0, len(self.terms) - 1))
        known = self.terms[at] == terms if len(self.terms) else np.zeros(len(terms), dtype=bool)
        counts = np.where(known, self.counts[at] if len(self.terms) else 0.0, 1.0)
        counts = np.minimum(counts, self.rows)
        weights: npt.NDArray[np.float32] = np.log1p((self.rows - counts + 0.5) / (counts + 0.5)).astype(np.float32)
        return weights

    def to_bytes(self) -> bytes:
        header = _HEADER.pack(_MAGIC, self.rows, len(self.terms))
        return header + self.terms.astype("<u4").tobytes() + self.counts.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Statistics:
        """Nothing is known where there are no bytes. Raises ValueError for bytes that `to_bytes` did not write."""
        if not content:
            return cls.none()
        if len(content) < _HEADER.size:
            raise ValueError(f"expected statistics of at least {_HEADER.size} bytes, found {len(content)}")
        magic, rows, count = _HEADER.unpack_from(content)
        if magic != _MAGIC or count > MAX_TERMS or len(content) != _HEADER.size + 8 * count:
            raise ValueError(f"expected statistics of {count} terms, found {len(content)} bytes that begin {magic!r}")
        terms = np.frombuffer(content, "<u4", count, _HEADER.size)
        counts = np.frombuffer(content, "<f4", count, _HEADER.size + 4 * count)
        if (np.diff(terms.astype(np.int64)) <= 0).any() or not np.isfinite(counts).all() or (counts < 0).any():
            raise ValueError("expected ascending terms with finite counts")
        return cls(rows, terms, counts)
