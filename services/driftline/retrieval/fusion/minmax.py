"""Weighted sum of scores, each ranking stretched to 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from driftline.retrieval.fusion.base import Fused, Fusion, Ranking, shares, summed


class MinMax(Fusion):
    """The weighted mean of (score - lowest) / (highest - lowest) of each ranking; 0 where a document is not in one.

    "CombSUM" with min-max normalisation (Fox and Shaw, TREC-2, 1994; Lee, SIGIR 1997). In a ranking whose scores are
    all the same every one counts 1: they are its best.
    """

    kind: ClassVar[str] = "minmax"

    def fuse(self, rankings: Sequence[Ranking]) -> list[Fused]:
        return summed(_stretched(ranking, share) for ranking, share in zip(rankings, shares(rankings), strict=True))


def _stretched(ranking: Ranking, share: float) -> dict[str, float]:
    if not ranking.hits:
        return {}
    lowest = min(hit.score for hit in ranking.hits)
    span = max(hit.score for hit in ranking.hits) - lowest
    return {hit.key: share * ((hit.score - lowest) / span if span > 0 else 1.0) for hit in ranking.hits}
