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
# Magic, documents, rows, what an unlisted term counts as, number of terms.
_HEADER = struct.Struct("<4sQQfI")
_MAGIC = b"DTS2"


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """How many documents and rows (their chunks) an index has, and in how many rows each of its most frequent terms is.

    `terms` is uint32, ascending; `counts` is float32, and not whole where a sample was scaled up. A term that is not
    listed counts as one that is in `unlisted` rows.
    """

    documents: int
    rows: int
    unlisted: float
    terms: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.float32]

    @classmethod
    def none(cls) -> Statistics:
        return cls(0, 0, 1.0, np.empty(0, np.uint32), np.empty(0, np.float32))

    @classmethod
    def of(cls, sample: Iterable[Sparse], documents: int) -> Statistics:
        """From the rows of a sample of documents, scaled up to all of them.

        A term that is not listed counts as the rarest that is. Where terms had to be left out, it counts as those on
        average, each as often as it is there: a query names a common one more often.
        """
        parts = list(sample)
        if not parts:
            return cls.none()
        documents = max(documents, len(parts))
        scale = documents / len(parts)
        # A term is in a row once.
        terms, times = np.unique(np.concatenate([part.terms for part in parts]), return_counts=True)
        rows = round(scale * sum(len(part) for part in parts))
        counts = (times * scale).astype(np.float32)
        often_first = np.argsort(-times, kind="stable")
        kept, left_out = np.sort(often_first[:MAX_TERMS]), counts[often_first[MAX_TERMS:]]
        unlisted = float(counts.min(initial=rows))
        if len(left_out):
            unlisted = float(left_out @ left_out / left_out.sum())
        return cls(documents, rows, unlisted, terms[kept].astype(np.uint32), counts[kept])

    def idf(self, terms: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
        """The weight of each term for being rare: ln(1 + (N - n + 1/2) / (n + 1/2)) of N rows with n that have it, as
        Lucene counts it; 1 where nothing is known."""
        if not self.rows:
            return np.ones(len(terms), dtype=np.float32)
        at = np.minimum(np.searchsorted(self.terms, terms), max(0, len(self.terms) - 1))
        known = self.terms[at] == terms if len(self.terms) else np.zeros(len(terms), dtype=bool)
        counts = np.where(known, self.counts[at] if len(self.terms) else 0.0, self.unlisted)
        counts = np.minimum(counts, self.rows)
        weights: npt.NDArray[np.float32] = np.log1p((self.rows - counts + 0.5) / (counts + 0.5)).astype(np.float32)
        return weights

    def to_bytes(self) -> bytes:
        header = _HEADER.pack(_MAGIC, self.documents, self.rows, self.unlisted, len(self.terms))
        return header + self.terms.astype("<u4").tobytes() + self.counts.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Statistics:
        """Nothing is known where there are no bytes. Raises ValueError for bytes that `to_bytes` did not write."""
        if not content:
            return cls.none()
        if len(content) < _HEADER.size:
            raise ValueError(f"expected statistics of at least {_HEADER.size} bytes, found {len(content)}")
        magic, documents, rows, unlisted, count = _HEADER.unpack_from(content)
        if magic != _MAGIC or count > MAX_TERMS or len(content) != _HEADER.size + 8 * count:
            raise ValueError(f"expected statistics of {count} terms, found {len(content)} bytes that begin {magic!r}")
        terms = np.frombuffer(content, "<u4", count, _HEADER.size)
        counts = np.frombuffer(content, "<f4", count, _HEADER.size + 4 * count)
        if (np.diff(terms.astype(np.int64)) <= 0).any():
            raise ValueError("expected statistics of ascending terms, each once")
        if not (np.append(counts, unlisted) > 0).all() or not np.isfinite(np.append(counts, unlisted)).all():
            raise ValueError("expected statistics with counts above 0")
        return cls(documents, rows, unlisted, terms, counts)
