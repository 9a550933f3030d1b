"""How an answer came about, step by step."""

from __future__ import annotations

from typing import Any

from driftline.core.collections import Collection
from driftline.query.request import SearchBody
from driftline.retrieval.plan.run import Answer


def explained(collection: Collection, body: SearchBody, answer: Answer) -> dict[str, Any]:
    """For the answer of a search that asks for it."""
    told: dict[str, Any] = {
        "collection_uid": collection.uid,
        "cached": False,
        "score_kind": answer.score_kind,
        "steps": list(answer.steps),
    }
    if body.explain_document is not None:
        told["document"] = _one(body.explain_document, answer)
    return told


def _one(document: str, answer: Answer) -> dict[str, Any]:
    """Where a document stands, of those that were ranked."""
    for rank, hit in enumerate(answer.hits, 1):
        if hit.hit.id == document:
            return {"id": document, "rank": rank, "score": hit.score, "version": hit.hit.version, "indexes": {
                name: {"score": place.score, "rank": place.rank} for name, place in hit.places.items()
            }}  # fmt: skip
    return {"id": document, "rank": None, "ranked": {name: len(found.hits) for name, found in answer.found.items()}}
