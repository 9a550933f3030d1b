"""Carrying over while the model changes: the best hits of older generations are embedded and ranked by the new model.

The first half are the best hits as found. The other half is asked for by what the first half showed: the older legs are
searched once more, nearer to the hits that the new model likes best (docs/decisions/0010-cascade.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

import numpy as np

from driftline.core.errors import InvalidRecord
from driftline.core.ports import VectorStore
from driftline.core.store import Hit
from driftline.core.vectors import Sparse, as_dense, score
from driftline.drift.base import unit
from driftline.drift.selection import mixed
from driftline.retrieval.embeddings import CachedEncoder
from driftline.retrieval.engine import Found
from driftline.retrieval.leg_search import LegSearch, Wanted

# Below that a second round costs more time than it finds.
_LEAST_FOR_TWO_ROUNDS = 10
_LIKED = 3


class CarryOver:
    """Thread-safe. `documents` encodes the texts of documents."""

    def __init__(self, store: VectorStore, documents: CachedEncoder) -> None:
        self._store = store
        self._search = LegSearch(store)
        self._documents = documents

    def apply(self, found: Found, wanted: Wanted, count: int) -> Found:
        """Score as many older hits anew as there are among the best `count`; `carried` of the answer are those.

        Older hits that were not embedded come after those that were. A text that the encoder refuses counts as not
        embedded. Raises Unavailable.
        """
        window = [hit for hit in found.hits[:count] if hit.leg > 0]
        if not window:
            return found
        hits = {hit.key: hit for hit in found.hits}
        # A query of words is not moved towards what was liked.
        once = len(window) < _LEAST_FOR_TWO_ROUNDS or isinstance(found.asked[0].vector, Sparse)
        half = len(window) if once else -(-len(window) // 2)
        embedded = self._scored_anew(found, window[:half])
        if half < len(window):
            exact = [hit for hit in found.hits if hit.leg == 0 and hit.key not in embedded]
            liked = sorted([*exact, *embedded.values()], key=lambda hit: (-hit.score, hit.key))[:_LIKED]
            # What the first search found fills up when the second one finds too little.
            nearer = self._nearer(found, liked, replace(wanted, needed=count))
            candidates = {hit.key: hits.get(hit.key, hit) for hit in (*nearer, *window) if hit.key not in embedded}
            second = list(candidates.values())[: len(window) - half]
            hits |= {hit.key: hit for hit in second}
            embedded |= self._scored_anew(found, second)
        return replace(found, hits=_ordered(hits | embedded, embedded.keys()), carried=list(embedded.values()))

    def _scored_anew(self, found: Found, hits: Sequence[Hit]) -> dict[str, Hit]:
        """These hits with scores of the newest leg, by key; without those whose text the encoder refuses."""
        newest = found.asked[0]
        texts = [newest.space.document_prefix + hit.text for hit in hits]
        answers = self._documents.encode(newest.space, texts)
        return {
            hit.key: replace(hit, score=score(newest.target.metric, newest.vector[0], vector))
            for hit, vector in zip(hits, answers, strict=True)
            if not isinstance(vector, InvalidRecord)
        }

    def _nearer(self, found: Found, liked: Sequence[Hit], wanted: Wanted) -> list[Hit]:
        """Hits of the older legs nearer to `liked`, best first, by scores of the moved queries."""
        newer = {hit.key for hit in found.hits if hit.leg == 0}
        places = sorted({hit.leg for hit in found.hits} - {0})
        hits = [hit for place in places for hit in self._moved(found, place, liked, wanted) if hit.key not in newer]
        return sorted(hits, key=lambda hit: -hit.score)

    def _moved(self, found: Found, place: int, liked: Sequence[Hit], wanted: Wanted) -> Iterable[Hit]:
        """Search an older leg once more, its query moved half of the way to hits that turned out to be good.

        The leg must hold what newer legs do, as the one of a complete generation does. What newer generations hold is
        left out. Relevance feedback after Rocchio (1971) with equal weights; its use for finding what to re-rank next
        is that of adaptive re-ranking (MacAvaney et al., CIKM 2022).
        """
        leg = found.asked[place]
        stored = {d.key: d for d in self._store.fetch(leg.target, [hit.key for hit in liked], with_vectors=True)}
        rows = [
            # Another generation may have cut the document into other chunks.
            vectors[hit.chunk] if hit.leg == place and hit.chunk < len(vectors) else vectors.mean(axis=0)
            for hit in liked
            if hit.key in stored and len(vectors := as_dense(stored[hit.key].vectors))
        ]
        if not rows:
            return []
        moved = mixed(as_dense(leg.vector), unit(np.mean(rows, axis=0, keepdims=True).astype(np.float32)), 0.5)
        hits = self._search.best(replace(leg, vector=moved), place, wanted, wanted.needed).hits
        known: dict[str, int] = {}
        self._search.newer_versions(found.asked[:place], hits, known)
        return [hit for hit in hits if known[hit.key] < hit.version]


def _ordered(hits: Mapping[str, Hit], embedded: Set[str]) -> list[Hit]:
    """By score; an older hit that was not embedded comes after the last one that was."""
    last = min((hits[key].score for key in embedded), default=float("inf"))

    def rank(hit: Hit) -> tuple[float, bool, float, str]:
        known = hit.leg == 0 or hit.key in embedded
        return (-hit.score if known else -min(hit.score, last), not known, -hit.score, hit.key)

    return [replace(hit, score=-rank(hit)[0]) for hit in sorted(hits.values(), key=rank)]
