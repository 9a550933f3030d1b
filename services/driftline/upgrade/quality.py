"""How good searches are, asked of the live stores with queries whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

from driftline.core.collections import Collection, CollectionIndex
from driftline.core.errors import InvalidRequest, NotFound
from driftline.core.limits import FUSION_WINDOW
from driftline.core.records import Leg
from driftline.drift.quality import paired
from driftline.retrieval.evaluation import ndcg
from driftline.retrieval.inputs import Text
from driftline.retrieval.plan import Plan, default_plan, indexes_of, only
from driftline.retrieval.plan.run import Ask, Planner
from driftline.upgrade.sample import LEAST_QUERIES
from driftline.upgrade.state import Estimate, ShadowQuery, UpgradeState, planned_route

_DEPTH = 10


def judged_plan(index: CollectionIndex) -> Plan:
    """What the change of an index is judged by: what users are served by default, if that has a part of it."""
    plan = default_plan(index.collection)
    return plan if index.name in indexes_of(plan) else only(index.name)


class Judge:
    """Runs shadow queries over any route of an index, with the same search as the query service and its default
    window."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def ndcg(
        self, plan: Plan, index: CollectionIndex, legs: Sequence[Leg], queries: Sequence[ShadowQuery]
    ) -> list[float]:  # fmt: skip
        """nDCG@10 of each query. Raises Unavailable."""
        found = self.hits(plan, index, legs, queries)
        return [ndcg(ids, query.relevant, _DEPTH) for ids, query in zip(found, queries, strict=True)]

    def hits(
        self, plan: Plan, index: CollectionIndex, legs: Sequence[Leg], queries: Sequence[ShadowQuery]
    ) -> list[list[str]]:  # fmt: skip
        """Ids of the documents found for each query, best first, at most ten, where searches read `legs` of the index
        and the others as they are. Raises Unavailable."""
        collection = index.collection.with_legs(index.name, legs)
        return [self._one(plan, collection, query) for query in queries]

    def _one(self, plan: Plan, collection: Collection, query: ShadowQuery) -> list[str]:
        asked = Ask(
            collection=collection,
            input=Text(query.text),
            needed=_DEPTH,
            window=FUSION_WINDOW,
            tenant=query.tenant if collection.definition.tenancy else None,
            with_fields=False,
        )
        try:
            found = self._planner.run(plan, asked)
        except NotFound:
            raise
        except InvalidRequest:
            # A query that an encoder refuses finds nothing.
            return []
        return [hit.hit.id for hit in found.hits[:_DEPTH]]

    def estimate(
        self, state: UpgradeState, index: CollectionIndex, shadow_queries: int, at_us: int
    ) -> Estimate | None:  # fmt: skip
        """Of what the state would serve, against the status quo; None of too few queries. Raises Unavailable."""
        queries = state.shadow if state.judged else state.shadow[:shadow_queries]
        if len(queries) < LEAST_QUERIES:
            return None
        old, new = (Leg(state.old),), (Leg(state.new),)
        plan = judged_plan(index)
        today = self.ndcg(plan, index, old, queries)
        legs = planned_route(state)
        served = today if legs == old else self.ndcg(plan, index, legs, queries)
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
