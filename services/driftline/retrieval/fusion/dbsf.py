"""Distribution-based score fusion: like min-max, with limits that one outlier does not move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from driftline.retrieval.fusion.base import Fused, Fusion, Ranking, shares, summed


class Dbsf(Fusion):
    """The weighted mean of the scores of each ranking, stretched from mean - 3 standard deviations (0) to mean + 3
    (1) and cut there; 0 where a document is not in one (Mazzeschi, "Distribution-based score fusion", 2023; as Qdrant
    and Vertex AI do it). In a ranking whose scores are all the same every one counts 1/2.
    """

    kind: ClassVar[str] = "dbsf"

    def fuse(self, rankings: Sequence[Ranking]) -> list[Fused]:
        return summed(_stretched(ranking, share) for ranking, share in zip(rankings, shares(rankings), strict=True))


def _stretched(ranking: Ranking, share: float) -> dict[str, float]:
    if not ranking.hits:
        return {}
    scores = np.array([hit.score for hit in ranking.hits], dtype=np.float64)
    reach = 6 * float(scores.std())
    # Equal scores may differ by what rounding leaves.
    if reach <= 1e-9 * max(1.0, float(np.abs(scores).max())):
        stretched = np.full(len(scores), 0.5)
    else:
        stretched = np.clip((scores - scores.mean()) / reach + 0.5, 0.0, 1.0)
    return {hit.key: share * float(value) for hit, value in zip(ranking.hits, stretched, strict=True)}
