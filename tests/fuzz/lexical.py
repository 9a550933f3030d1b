"""What lexical search reads: texts in any language, and the statistics of an index."""

from __future__ import annotations

import numpy as np

from driftline.core.analysis import LANGUAGES, Analyzer
from driftline.retrieval.lexical import Bm25
from driftline.retrieval.term_statistics import Statistics
from tests.fuzz.documents import utf8
from tests.fuzz.grammar import Grammar
from tests.fuzz.target import Target

_ANALYZERS = tuple(Bm25(Analyzer.model_validate(language)) for language in LANGUAGES)


def make_statistics(g: Grammar) -> bytes:
    rows = _ANALYZERS[0].document_weights([g.text() for _ in range(g.rng.randrange(4))])
    return Statistics.of(rows, g.rng.choice((0, 1, 100, 2**33))).to_bytes()


def run_statistics(content: bytes) -> str:
    statistics = Statistics.from_bytes(content)
    assert not content or statistics.to_bytes() == content
    idf = statistics.idf(np.array([0, 1, 2**32 - 1], dtype=np.uint32))
    assert np.isfinite(idf).all()
    assert (idf > 0).all()
    return "read"


def make_words(g: Grammar) -> bytes:
    """A byte that picks the language, and the text."""
    return bytes([g.rng.randrange(len(_ANALYZERS))]) + utf8(" ".join(g.text() for _ in range(g.rng.randrange(5))))


def run_words(content: bytes) -> str:
    bm25 = _ANALYZERS[(content or b"0")[0] % len(_ANALYZERS)]
    text = content[1:].decode("utf-8", "replace")
    rows = bm25.document_weights([text])
    assert rows.is_well_formed()
    assert (rows.weights > 0).all()
    assert bm25.query_weights(text, Statistics.none()).terms.tolist() == rows.terms.tolist()
    return "some" if len(rows.terms) else "none"


TARGETS = (
    Target("statistics", 10, make_statistics, run_statistics, (ValueError,)),
    Target("words", 20, make_words, run_words, ()),
)
