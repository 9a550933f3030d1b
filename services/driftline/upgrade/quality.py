"""How good searches are, asked of the live stores with queries whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.core.collections import CollectionIndex
from driftline.core.errors import InvalidRequest, NotFound
from driftline.core.records import Leg
from driftline.drift.quality import paired
from driftline.retrieval.engine import Engine
from driftline.retrieval.evaluation import ndcg
from driftline.retrieval.leg_search import Wanted
from driftline.retrieval.legs import Text
from driftline.upgrade.sample import LEAST_QUERIES
from driftline.upgrade.state import Estimate, ShadowQuery, UpgradeState, planned_route

_DEPTH = 10


class Judge:
    """Runs shadow queries over any route, with the same search as the query service."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ndcg(self, index: CollectionIndex, legs: Sequence[Leg], queries: Sequence[ShadowQuery]) -> list[float]:
        """nDCG@10 of each query. Raises Unavailable."""
        found = self.hits(index, legs, queries)
        return [ndcg(ids, query.relevant, _DEPTH) for ids, query in zip(found, queries, strict=True)]

    def hits(self, index: CollectionIndex, legs: Sequence[Leg], queries: Sequence[ShadowQuery]) -> list[list[str]]:
        """Ids of the documents found for each query, best first, at most ten. Raises Unavailable."""
        return [self._one(index, legs, query) for query in queries]

    def _one(self, index: CollectionIndex, legs: Sequence[Leg], query: ShadowQuery) -> list[str]:
        wanted = Wanted(_DEPTH, query.tenant if index.collection.definition.tenancy else None, with_fields=False)
        try:
            found = self._engine.search(index, legs, Text(query.text), wanted)
        except NotFound:
            raise
        except InvalidRequest:
            # A query that an encoder refuses finds nothing.
            return []
        return [hit.id for hit in found.hits]

    def estimate(
        self, state: UpgradeState, index: CollectionIndex, shadow_queries: int, at_us: int
    ) -> Estimate | None:  # fmt: skip
        """Of what the state would serve, against the status quo; None of too few queries. Raises Unavailable."""
        queries = state.shadow if state.judged else state.shadow[:shadow_queries]
        if len(queries) < LEAST_QUERIES:
            return None
        old, new = (Leg(state.old),), (Leg(state.new),)
        today = self.ndcg(index, old, queries)
        legs = planned_route(state)
        served = today if legs == old else self.ndcg(index, legs, queries)
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
