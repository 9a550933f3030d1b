"""How good searches are, asked of the live stores with queries whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.core.collections import Collection
from driftline.core.errors import InvalidRecord, NotFound
from driftline.core.ports import Embedder
from driftline.core.records import Leg, Matrix, Space
from driftline.drift.quality import paired
from driftline.retrieval.evaluation import ndcg
from driftline.retrieval.generations import GenerationSearch, Wanted
from driftline.upgrade.sample import LEAST_QUERIES, background_encoder
from driftline.upgrade.state import Estimate, ShadowQuery, UpgradeState, planned_route

_DEPTH = 10


class Judge:
    """Runs shadow queries over any route, with the same search as the query service. Not thread-safe."""

    def __init__(self, search: GenerationSearch, embedder: Embedder) -> None:
        self._search = search
        self._encoder = background_encoder(embedder)
        self._vectors: dict[tuple[str, str], Matrix] = {}

    def _encode(self, space: Space, text: str) -> Matrix:
        key = (space.fingerprint, text)
        if key not in self._vectors:
            (vector,) = self._encoder.encode(space, [space.query_prefix + text])
            if isinstance(vector, InvalidRecord):
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

    def estimate(
        self, state: UpgradeState, collection: Collection, shadow_queries: int, at_us: int
    ) -> Estimate | None:  # fmt: skip
        """Of what the state would serve, against the status quo; None of too few queries. Raises Unavailable."""
        queries = state.shadow if state.judged else state.shadow[:shadow_queries]
        if len(queries) < LEAST_QUERIES:
            return None
        old, new = (Leg(state.old),), (Leg(state.new),)
        today = self.ndcg(collection, old, queries)
        legs = planned_route(state)
        served = today if legs == old else self.ndcg(collection, legs, queries)
        alone = served if legs == new else None
        difference = paired(served, today)
        progress = state.progress
        return Estimate(
            at_us=at_us,
            fraction=round(min(1.0, progress.done / progress.total), 4) if progress.total else 0.0,
            queries=len(queries),
            served=round(sum(served) / len(served), 4),
            status_quo=round(sum(today) / len(today), 4),
            new_only=None if alone is None else round(sum(alone) / len(alone), 4),
            difference=(round(difference.mean, 4), round(difference.low, 4), round(difference.high, 4)),
        )
