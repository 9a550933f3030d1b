"""Lexical search as an inner product of sparse vectors: BM25, half of it on the side of the document.

A document's weight of a term says how often the term is there, for the length of the text; a query's says how rare it
is. Their product, summed over the terms in common, is BM25 (Robertson and Zaragoza 2009, section 3.4).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from driftline.core import jsons
from driftline.core.analysis import VERSION, Analyzer
from driftline.core.errors import InvalidRequest, PartlyUnavailable
from driftline.core.records import Space
from driftline.core.vectors import Sparse
from driftline.retrieval.term_statistics import Statistics
from driftline.retrieval.terms import Terms

log = logging.getLogger(__name__)
# Of one text; the ones that count least are left out. A row of so many takes 32 KB, of the 64 KB that a store can hold.
MAX_TERMS_PER_TEXT = 4_096


class Bm25:
    """The vectors of one analyzer. Thread-safe."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._terms = Terms(analyzer)

    def document_weights(self, texts: Sequence[str]) -> Sparse:
        """A row for each text: tf (k1 + 1) / (tf + k1 (1 - b + b length / average)) of each term that is there tf
        times, where the text has `length` terms."""
        return Sparse.concatenated([self._document(text) for text in texts])

    def _document(self, text: str) -> Sparse:
        found = self._terms.of(text)
        a = self._analyzer
        counted = Counter(found)
        terms = np.fromiter(counted.keys(), dtype=np.uint32, count=len(counted))
        often = np.fromiter(counted.values(), dtype=np.float32, count=len(counted))
        length = 1 - a.b + a.b * len(found) / a.average_length
        return _row(terms, often * (a.k1 + 1) / (often + a.k1 * length))

    def query_weights(self, text: str, statistics: Statistics) -> Sparse:
        """One row: how often a term is in the text, times its `Statistics.idf`."""
        counted = Counter(self._terms.of(text))
        terms = np.fromiter(counted.keys(), dtype=np.uint32, count=len(counted))
        often = np.fromiter(counted.values(), dtype=np.float32, count=len(counted))
        return _row(terms, often * statistics.idf(terms))


def _row(terms: np.ndarray, weights: np.ndarray) -> Sparse:
    if len(terms) > MAX_TERMS_PER_TEXT:
        kept = np.argpartition(weights, -MAX_TERMS_PER_TEXT)[-MAX_TERMS_PER_TEXT:]
        terms, weights = terms[kept], weights[kept]
    order = np.argsort(terms)
    return Sparse(np.array([0, len(terms)], dtype=np.int64), terms[order], weights[order].astype(np.float32))


def document_weights(space: Space, texts: Sequence[str]) -> Sparse:
    """The vectors of texts of documents in a lexical space. Raises PartlyUnavailable."""
    return _bm25(space.analyzer).document_weights(texts)


def query_weights(space: Space, text: str, statistics: bytes) -> Sparse:
    """The vector of a query's text; `statistics` as the control topic has them. Raises PartlyUnavailable."""
    return _bm25(space.analyzer).query_weights(text, read_statistics(statistics))


@lru_cache(maxsize=256)
def _bm25(canonical: str) -> Bm25:
    """Raises PartlyUnavailable for an analyzer of another version, or that this one cannot read."""
    try:
        told = jsons.parse(canonical, "analyzer")
        if told["version"] == VERSION:
            return Bm25(Analyzer.model_validate(told["analyzer"]))
    except (InvalidRequest, KeyError, TypeError, ValueError) as error:
        raise PartlyUnavailable("control", f"an analyzer that cannot be read: {error}") from error
    raise PartlyUnavailable("control", f"an analyzer of version {told['version']}; this is version {VERSION}")


@lru_cache(maxsize=64)
def read_statistics(content: bytes) -> Statistics:
    """Nothing is known where they cannot be read."""
    try:
        return Statistics.from_bytes(content)
    except ValueError as error:
        log.error("unreadable statistics of a lexical index", extra={"error": str(error)})
        return Statistics.none()
