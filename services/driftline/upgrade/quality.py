"""How good searches are, asked of the live stores with queries whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.core.collections import Collection
from driftline.core.errors import NotFound
from driftline.core.ports import Embedder
from driftline.core.records import Leg, Matrix, Space
from driftline.retrieval.evaluation import ndcg
from driftline.retrieval.generations import GenerationSearch, Wanted
from driftline.upgrade.sample import encode
from driftline.upgrade.state import ShadowQuery

_DEPTH = 10


class Judge:
    """Runs shadow queries over any route, with the same search as the query service; used by one thread."""

    def __init__(self, search: GenerationSearch, embedder: Embedder) -> None:
        self._search = search
        self._embedder = embedder
        self._vectors: dict[tuple[str, str], Matrix] = {}

    def _encode(self, space: Space, text: str) -> Matrix:
        key = (space.fingerprint, text)
        if key not in self._vectors:
            (vector,) = encode(self._embedder, space, [text], space.query_prefix)
            if vector is None:
                raise NotFound("refused_query", "the encoder refuses a shadow query", "text")
            if len(self._vectors) > 10_000:
                self._vectors.clear()
            self._vectors[key] = vector[None]
        return self._vectors[key]

    def ndcg(self, collection: Collection, legs: Sequence[Leg], queries: Sequence[ShadowQuery]) -> list[float]:
        """nDCG@10 of each query. Raises Unavailable."""
        found = self.hits(collection, legs, queries)
        return [ndcg(ids, query.relevant, _DEPTH) for ids, query in zip(found, queries, strict=True)]

    def hits(self, collection: Collection, legs: Sequence[Leg], queries: Sequence[ShadowQuery]) -> list[list[str]]:
        """Ids of the documents found for each query, best first, at most ten. Raises Unavailable."""
        return [self._one(collection, legs, query) for query in queries]

    def _one(self, collection: Collection, legs: Sequence[Leg], query: ShadowQuery) -> list[str]:
        wanted = Wanted(_DEPTH, query.tenant if collection.definition.tenancy else None, with_fields=False)
        found = self._search.search(collection, legs, lambda space: self._encode(space, query.text), wanted)
        return [hit.id for hit in found.hits]
