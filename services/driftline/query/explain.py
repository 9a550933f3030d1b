"""How an answer came about, step by step, and where one document stands that may not be in it."""

from __future__ import annotations

from typing import Any

from driftline.core.collections import Collection
from driftline.core.filters import Filter, matches
from driftline.core.records import document_key
from driftline.retrieval.index_search import IndexSearcher, Standing
from driftline.retrieval.plan.run import Answer


def explained(collection: Collection, answer: Answer) -> dict[str, Any]:
    """For the answer of a search that asks for it."""
    return {
        "collection_uid": collection.uid,
        "cached": False,
        "score_kind": answer.score_kind,
        "steps": list(answer.steps),
    }


def standing(
    document: str, tenant: str, filter_: Filter | None, answer: Answer, indexes: IndexSearcher
) -> dict[str, Any]:
    """Where a document of the tenant stands: its rank in the answer and in each index, None beyond what was ranked; how
    near it is by each index, found or not; whether it passes the search's filter. Raises Unavailable."""
    key = document_key(tenant, document)
    rank, hit = next(((i, hit) for i, hit in enumerate(answer.hits, 1) if hit.hit.key == key), (None, None))
    held = {name: indexes.standing(found, key) for name, found in answer.found.items()}
    some = next((one for one in held.values() if one is not None), None)
    return {
        "id": document,
        "rank": rank,
        "score": None if hit is None else hit.score,
        "passes_filter": None if some is None else filter_ is None or matches(filter_, some.attributes),
        "indexes": {name: _in_one(answer, name, key, one) for name, one in held.items()},
    }


def _in_one(answer: Answer, name: str, key: str, held: Standing | None) -> dict[str, Any]:
    ranked = answer.found[name].hits
    rank = next((rank for rank, hit in enumerate(ranked, 1) if hit.key == key), None)
    told: dict[str, Any] = {"ranked": len(ranked), "rank": rank, "held": held is not None}
    if held is not None:
        told |= {"score": held.score, "chunk": held.chunk, "version": held.version, "generation": held.generation}
    return told
