"""Reciprocal rank fusion: only ranks count, so no scale of scores has to be known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from driftline.retrieval.fusion.base import Fused, Fusion, Ranking, summed


class Rrf(Fusion):
    """The sum of weight / (k + rank) over the rankings that have the document (Cormack, Clarke and Büttcher, SIGIR
    2009, whose k is 60)."""

    kind: ClassVar[str] = "rrf"
    k: int = Field(60, ge=1, le=1_000, description="how little the first ranks count more than the next ones")

    def fuse(self, rankings: Sequence[Ranking]) -> list[Fused]:
        return summed({hit.key: r.weight / (self.k + hit.rank) for hit in r.hits} for r in rankings)
