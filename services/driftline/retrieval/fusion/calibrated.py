"""Scores turned into probabilities of relevance, index by index, and combined as evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from driftline.core.errors import InvalidRequest
from driftline.core.schema import DefinitionPart
from driftline.retrieval.fusion.base import Fused, Fusion, Ranking, shares


class Logistic(DefinitionPart):
    """probability = 1 / (1 + exp(-(slope score + intercept))) (Platt, Advances in Large Margin Classifiers, 1999)."""

    slope: float = Field(ge=0, le=1e6)
    intercept: float = Field(ge=-1e6, le=1e6)


class Calibrated(Fusion):
    """The weighted mean of the log-odds of each index, as a probability: a logarithmic opinion pool (Genest and Zidek,
    Statistical Science 1986).

    A document that an index did not find gets what that index gave its last one: it scored no better than that.
    `driftline eval --calibrate` fits the slopes and intercepts to judged queries.
    """

    kind: ClassVar[str] = "calibrated"
    of: dict[str, Logistic] = Field(min_length=1, max_length=64, description="by the name of the index")

    def fuse(self, rankings: Sequence[Ranking]) -> list[Fused]:
        odds: dict[str, float] = {hit.key: 0.0 for ranking in rankings for hit in ranking.hits}
        for ranking, share in zip(rankings, shares(rankings), strict=True):
            known = self.of.get(ranking.name)
            if known is None:
                detail = f"index {ranking.name!r} has no calibration; there are {', '.join(self.of)}"
                raise InvalidRequest("invalid_plan", detail, "fuse.of")
            found = {hit.key: known.slope * hit.score + known.intercept for hit in ranking.hits}
            if not found:
                continue
            last = min(found.values())
            for key in odds:
                odds[key] += share * found.get(key, last)
        fused = [Fused(key, _probability(value)) for key, value in odds.items()]
        return sorted(fused, key=lambda one: (-odds[one.key], one.key))


def _probability(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -700 else 0.0
